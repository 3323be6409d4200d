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
    match any_order_until(client, clock, &[id], until_ms, done).await? {
        Some(order) => Ok(order),
        None => client.order(id).await,
    }
}

/// Returns the first of several orders for which `done` holds, `None` if that is none by `until_ms`.
///
/// # Errors
/// If the node cannot be reached; a lost event stream alone is opened again.
pub async fn any_order_until(
    client: &dyn LedgerClient,
    clock: &dyn Clock,
    ids: &[OrderId],
    until_ms: u64,
    done: impl Fn(&Order) -> bool + Send + Sync,
) -> Result<Option<Order>, ClientError> {
    loop {
        // The height first: what happens between the two reads is then seen twice, never missed.
        let height = client.status().await?.height;
        for id in ids {
            let order = client.order(*id).await?;
            if done(&order) {
                return Ok(Some(order));
            }
        }
        let mut blocks = client.events(height + 1).await?;
        loop {
            let left = until_ms.saturating_sub(clock.now_ms());
            if left == 0 {
                return Ok(None);
            }
            let sleep = clock.sleep_ms(left);
            let next = blocks.next();
            pin_mut!(sleep, next);
            match futures::future::select(next, sleep).await {
                Either::Left((Some(Ok(block)), _)) => {
                    for id in ids {
                        if block.events.iter().any(|event| event.order() == Some(*id)) {
                            let order = client.order(*id).await?;
                            if done(&order) {
                                return Ok(Some(order));
                            }
                        }
                    }
                }
                Either::Left((Some(Err(_)) | None, _)) => {
                    clock.sleep_ms(200.min(left)).await;
                    break;
                }
                Either::Right(_) => return Ok(None),
            }
        }
    }
}
