//! Waiting for something to happen to an order, without polling.

use crate::{ClientError, Clock, LedgerClient};
use althing_types::{Order, OrderId};
use futures::{StreamExt as _, future::Either, pin_mut};

/// Returns the order as soon as `done` holds for it, or as it is at `until_ms`.
///
/// # Errors
/// If the node cannot be reached; a lost event stream alone is opened again.
pub async fn order_until(
    client: &dyn LedgerClient,
    clock: &dyn Clock,
    id: OrderId,
    until_ms: u64,
    done: impl Fn(&Order) -> bool + Send + Sync,
) -> Result<Order, ClientError> {
    loop {
        // The height first: what happens between the two reads is then seen twice, never missed.
        let height = client.status().await?.height;
        let order = client.order(id).await?;
        if done(&order) {
            return Ok(order);
        }
        let mut blocks = client.events(height + 1).await?;
        loop {
            let left = until_ms.saturating_sub(clock.now_ms());
            if left == 0 {
                return client.order(id).await;
            }
            let sleep = clock.sleep_ms(left);
            let next = blocks.next();
            pin_mut!(sleep, next);
            match futures::future::select(next, sleep).await {
                Either::Left((Some(Ok(block)), _)) => {
                    if block.events.iter().any(|event| event.order() == Some(id)) {
                        let order = client.order(id).await?;
                        if done(&order) {
                            return Ok(order);
                        }
                    }
                }
                Either::Left((Some(Err(_)) | None, _)) => {
                    clock.sleep_ms(200.min(left)).await;
                    break;
                }
                Either::Right(_) => return client.order(id).await,
            }
        }
    }
}
