//! A coordinator's duty to fetch inputs: it fetches what the beacon drew it for, and says so. (T-21)
//!
//! Nothing is kept: what counts is that it could be fetched. Where a source has it only later, it is asked
//! again until the coordinator's time is over; then the order goes on without it.

use crate::NodeClient;
use althing_sdk::{ClientError, Clock, Content, ContentError, LedgerClient as _, SendError, Sender, Source};
use althing_types::{Availability, Call, Input, LedgerError, Order, OrderId, object::CONTENT_INPUT_BYTES_MAX};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Either, select},
    stream::FuturesUnordered,
};
use std::{collections::BTreeSet, sync::Arc};

/// How often an input that no source has is looked for again, ms.
const FETCH_AGAIN_MS: u64 = 1_000;
/// Inputs that are fetched at a time; each is at most [`CONTENT_INPUT_BYTES_MAX`] in memory.
const FETCHES_MAX: usize = 4;
/// How long a node that cannot be read is left alone, ms.
const UNREADABLE_WAIT_MS: u64 = 1_000;

/// Watches for inputs that one coordinator is to fetch.
pub struct InputWatch {
    pub client: Arc<NodeClient>,
    pub clock: Arc<dyn Clock>,
    /// Signs for the coordinator's account.
    pub sender: Arc<Sender>,
    /// Gives content from sources.
    pub content: Arc<dyn Content>,
    /// Base URLs that may have inputs, the first first; then comes what an order names.
    pub sources: Vec<String>,
    /// Whether what orders name is asked at private addresses too, as in a network on one machine.
    pub sources_private: bool,
}

impl InputWatch {
    /// Fetches and confirms what it is drawn for, for ever.
    pub async fn run(&self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::debug!(%error, "cannot follow the chain");
            }
            self.clock.sleep_ms(UNREADABLE_WAIT_MS).await;
        }
    }

    /// Follows the chain until its events end.
    async fn follow(&self) -> Result<(), ClientError> {
        let account = self.sender.account();
        let mut running: FuturesUnordered<BoxFuture<'_, OrderId>> = FuturesUnordered::new();
        let mut seen = BTreeSet::new();
        let mut blocks = self.client.events(self.client.status().await?.height + 1).await?.fuse();
        loop {
            let to_fetch = self.client.inputs_to_fetch(&account)?;
            seen.retain(|id| to_fetch.iter().any(|order| order.id == *id));
            let free = FETCHES_MAX.saturating_sub(running.len());
            let new: Vec<_> = to_fetch.into_iter().filter(|order| !seen.contains(&order.id)).take(free).collect();
            for order in new {
                seen.insert(order.id);
                running.push(async move { self.fetch_and_confirm(order).await }.boxed());
            }
            // One that ended makes room for another, a block may bring another.
            futures::select_biased! {
                block = blocks.next() => match block {
                    Some(block) => drop(block?),
                    None => return Ok(()),
                },
                _ = running.select_next_some() => {}
            }
        }
    }

    async fn fetch_and_confirm(&self, order: Order) -> OrderId {
        let (Input::Content { cid, size, source }, Availability::Sampled { until_ms, .. }) =
            (&order.input, &order.availability)
        else {
            return order.id;
        };
        if *size > CONTENT_INPUT_BYTES_MAX {
            tracing::info!(order = %order.id, size, "an input is too large to be fetched");
            return order.id;
        }
        let sources = Source::of_input(&self.sources, source.as_ref(), self.sources_private);
        let mut told = false;
        loop {
            let left_ms = until_ms.saturating_sub(self.clock.now_ms());
            let got = self.content.get(cid, *size..=*size, &sources);
            // A source that takes its time takes no more than there is.
            let Either::Left((got, _)) = select(got, self.clock.sleep_ms(left_ms)).await else {
                tracing::warn!(order = %order.id, "an input did not come in time");
                return order.id;
            };
            match got {
                Ok(_) => {
                    self.confirm(&order).await;
                    return order.id;
                }
                // Later it will be the same.
                Err(error @ (ContentError::Size { .. } | ContentError::Unreadable { .. })) => {
                    tracing::warn!(order = %order.id, %error, "an input is not what its order says");
                    return order.id;
                }
                Err(error) if told => tracing::debug!(order = %order.id, %error, "an input was not fetched"),
                Err(error) => {
                    tracing::warn!(order = %order.id, %error, "an input was not fetched; it is looked for again");
                    told = true;
                }
            }
            self.clock.sleep_ms(FETCH_AGAIN_MS).await;
        }
    }

    async fn confirm(&self, order: &Order) {
        match self.sender.send(Call::InputConfirm { order: order.id }).await {
            // Enough others were faster, or the time was over.
            Ok(_) | Err(SendError::Ledger(LedgerError::NotDrawn)) => {}
            Err(error) => tracing::warn!(order = %order.id, %error, "an input was fetched, but that could not be said"),
        }
    }
}
