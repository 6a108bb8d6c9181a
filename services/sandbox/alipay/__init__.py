r"""Alipay's open gateway: POST /alipay/gateway.do, as strict as the real one.

A request is a form (query and body together) in `charset` (utf-8, gbk). Checked in this order: method, app_id, sign_type RSA2,
sign, charset, format JSON, version 1.0, timestamp (China time, 10 minutes either way [guess]), then the signature over all
non-empty parameters but `sign`, sorted, `k=v` joined by `&`, then biz_content. Faults answer 40001 (isv.missing-…) or 40002
(isv.invalid-…), business ones 40004 (ACQ.…), scripted trouble 20000. HTTP is always 200. An answer is signed over the raw text
of its node, `/` written `\/`; answers to an unknown app_id or method have no key to be signed with and carry no signature.

What surprises, as at the real one:
- precreate makes no trade: until the payer scans (POST /payer/alipay/{no}/open, or pay), query, close and refund answer
  ACQ.TRADE_NOT_EXIST although the code can still be paid; cancel ends the code, and answers without `action`.
- page.pay, wap.pay and app.pay are never sent by the merchant's server: the browser opens the URL or posts the form (then it
  is redirected to the payer's page), the app submits the order string to POST /alipay/app.do. POST /payer/alipay/{no}/pay
  takes what the merchant gave the payer (redirect_url, form, app_parameters or qr_code) and does both steps.
- refund answers refund_fee as the sum of all refunds of the trade; fund_change is N where a repeat changed nothing; the same
  out_request_no with another amount is ACQ.DISCORDANT_REPEAT_REQUEST.
- fastpay.refund.query answers 10000 without refund_status for a refund that does not exist.
- ACQ.SYSTEM_ERROR comes with 40004 and is no refusal: ask again.
- TRADE_CLOSED means timed out, closed or fully refunded; TRADE_FINISHED (POST /payer/alipay/{no}/finish) is not refundable.

Notices (form POST) come of TRADE_SUCCESS, TRADE_CLOSED, TRADE_FINISHED and of each refund (with refund_fee, out_biz_no,
gmt_refund). Only HTTP 200 with the seven letters `success` ends the repeats:
4m 10m 10m 1h 2h 6h 15h. notify_id stays, notify_time does not.

In scripts `close` is trade.close and trade.cancel.
forge, callbacks: signature amount seller app_id order sha1 (sign_type RSA). Domestic notices have no currency, nor a
timestamp that a merchant could refuse. Answers: signature unsigned amount order.

Bill: data.dataservice.bill.downloadurl.query, bill_type trade; the URL serves 30 s, a ZIP of two CSVs in GBK (names too):
details and summary. Fee 0.6 %, negative with a charge, given back with a refund.
The bill of a day exists when it is over in China.
"""
