"""Reviews: what operators resolve together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.payment.v1 import payment_service_pb2 as pb
from paymesh.payment.v1 import payment_service_pb2_grpc as rpc
from services.kernel.pages import page
from services.payment import mapping, usecases
from services.platform.interceptor import current

if TYPE_CHECKING:
    from services.payment.ports import Ports
    from services.payment.servicer.payments import Context
    from services.platform.batcher import Batcher
    from services.platform.reads import ReadPool


class Reviews(rpc.PaymentServiceServicer):
    """Reviews; a part of the servicer, at its desk."""

    _ports: Ports
    _batcher: Batcher
    _reads: ReadPool

    async def ListReviews(self, request: pb.ListReviewsRequest, context: Context) -> pb.ListReviewsResponse:
        """List what waits for operators."""
        wanted = page(request.page_size, request.page_token)
        found, token = await self._reads.run(usecases.list_reviews, self._ports, wanted, decided=request.all)
        return pb.ListReviewsResponse(reviews=map(mapping.review, found), next_page_token=token)

    async def ProposeReview(self, request: pb.ProposeReviewRequest, context: Context) -> pb.ProposeReviewResponse:
        """Say what is to be done."""
        call = current()
        proposed = await self._batcher.submit("propose_reviews", mapping.propose_review(call, request), call.deadline)
        return pb.ProposeReviewResponse(review=mapping.review(proposed))

    async def DecideReview(self, request: pb.DecideReviewRequest, context: Context) -> pb.DecideReviewResponse:
        """Agree, or turn it down."""
        call = current()
        answer = await self._batcher.submit("decide_reviews", mapping.decide_review(call, request), call.deadline)
        return pb.DecideReviewResponse.FromString(answer)
