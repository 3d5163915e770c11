"""What a backend promises beyond the contract where its queue and its store are one product: brokers prefetch."""

from __future__ import annotations

from openhqm.testing.bench import Base


class SingleProduct(Base):
    async def test_released_in_any_order(self) -> None:
        """Released requests stand in their old places, whichever was released first."""
        accepted = []
        for _ in range(4):
            accepted.append((await self.accept()).correlation_id)
            await self.bench.pass_time(1)
        for order in ((0, 1, 2), (2, 0, 1)):
            deliveries = await self.receive(3)
            self.assertEqual([each.request.correlation_id for each in deliveries], accepted[:3])
            for index in order:
                await self.do(deliveries[index].release())
                await self.bench.pass_time(1)
        deliveries = await self.receive(4)
        self.assertEqual([each.request.correlation_id for each in deliveries], accepted)
        self.assertEqual([each.attempt for each in deliveries], [1, 1, 1, 1])
