#!/usr/bin/env bash
# Tools of others, into the folder that is named: h2spec by Go, redocly by npm, testssl.sh by apt. What cannot be had is
# said; its suite then fails, for a suite that did not run has not passed.
# OUTSIDE_H2SPEC may name a clone of github.com/summerwind/h2spec: the module proxy has no release of it after 2.2.1.
set -uo pipefail
tools=$(realpath -m "${1:?folder}")
mkdir -p "$tools"

lacking() { echo "NOT INSTALLED: $1 ($2)" >&2; }

if [[ ! -x $tools/h2spec ]]; then
    if [[ $(type -P go) ]]; then
        if [[ ${OUTSIDE_H2SPEC:-} ]]; then
            (cd "$OUTSIDE_H2SPEC" && nice go build -o "$tools/h2spec" ./cmd/h2spec) || lacking h2spec "go build failed"
        else
            GOBIN=$tools nice go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible ||
                lacking h2spec "go install failed"
        fi
    else
        lacking h2spec "there is no Go"
    fi
fi

if [[ ! -x $tools/node_modules/.bin/redocly ]]; then
    if [[ $(type -P npm) ]]; then
        npm install --prefix "$tools" --no-audit --no-fund --silent @redocly/cli@2.77.0 || lacking redocly "npm failed"
    else
        lacking redocly "there is no npm"
    fi
fi

if [[ ! $(type -P testssl) && ! $(type -P testssl.sh) ]]; then
    if [[ $(type -P apt-get) ]] && ((EUID == 0)); then
        export DEBIAN_FRONTEND=noninteractive
        { apt-get -qq update && apt-get -qq --no-install-recommends install testssl.sh; } >"$tools/apt.log" 2>&1 ||
            lacking testssl.sh "$(tail -n 1 "$tools/apt.log")"
    else
        lacking testssl.sh "it takes apt-get and root"
    fi
fi
exit 0
