//! The chosen lane: the order's escrow first, then the answer straight to the client while the model
//! runs, then the signed completion on the ledger. (M-5)

use crate::{
    compute::ComputeError,
    core::{Provider, RunResult},
};
use althing_adapter::AdapterError;
use althing_sdk::{
    ClientError, SendError,
    delivery::{DeliveryRequest, FailureReason, Frame, REQUEST_AGE_MS_MAX, SignedFrame, Transcript},
    order_until,
};
use althing_types::{Call, Lane, LedgerError, Order, OrderId, OrderState, object::CONTENT_INPUT_BYTES_MAX};
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::mpsc;

/// How long an order may take to appear and to get its seed, ms.
const READY_WAIT_MS: u64 = 15_000;

/// Why a delivery did not start.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    #[error("the request is not signed by a key of the order's client, or its time is off")]
    Unauthorised,
    #[error("the order is not this provider's to deliver")]
    NotOurs,
    #[error("the input is not the one that the order names")]
    WrongInput,
    #[error("the order is over")]
    Over,
    #[error("the order is being delivered already")]
    Busy,
    #[error("the order's seed was not drawn in time")]
    NoSeed,
    #[error(transparent)]
    NotReady(ComputeError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the ledger refused: {0}")]
    Ledger(LedgerError),
    #[error(transparent)]
    Send(SendError),
    #[error(transparent)]
    Content(#[from] althing_sdk::ContentError),
}

impl From<SendError> for DeliverError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Ledger(error) => Self::Ledger(error),
            error => Self::Send(error),
        }
    }
}

/// A delivery that may start: the order is escrowed, accepted and seeded.
#[derive(Debug)]
pub struct Delivery {
    order: Order,
    seed: u64,
    input: Vec<u8>,
    /// The answer, if it was made before.
    done: Option<RunResult>,
    /// Held until the delivery ends; an answer that was made before needs none.
    _mark: Option<Mark>,
}

/// Marks an order as being delivered while it lives.
#[derive(Debug)]
struct Mark {
    delivering: Arc<Mutex<BTreeSet<OrderId>>>,
    order: OrderId,
}

impl Mark {
    /// The mark of an order that nobody else delivers at the moment.
    fn set(delivering: &Arc<Mutex<BTreeSet<OrderId>>>, order: OrderId) -> Result<Self, DeliverError> {
        if delivering.lock().insert(order) {
            Ok(Self { delivering: delivering.clone(), order })
        } else {
            Err(DeliverError::Busy)
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.delivering.lock().remove(&self.order);
    }
}

/// Why a delivery that began does not end well.
struct Failure {
    reason: FailureReason,
    code: Option<String>,
    message: String,
}

impl Failure {
    fn of(error: &dyn std::error::Error) -> Self {
        Self { reason: FailureReason::Failed, code: None, message: error.to_string() }
    }
}

impl From<ComputeError> for Failure {
    fn from(error: ComputeError) -> Self {
        let (reason, code) = match &error {
            ComputeError::Adapter(AdapterError::Refused { code, .. }) => (FailureReason::Refused, Some(code.clone())),
            ComputeError::Adapter(AdapterError::Busy(_)) => (FailureReason::Busy, None),
            ComputeError::Adapter(AdapterError::Unavailable(_)) => (FailureReason::Unavailable, None),
            _ => (FailureReason::Failed, None),
        };
        Self { reason, code, message: error.to_string() }
    }
}

impl Provider {
    /// Checks a request and accepts its order. The client may ask again after a lost connection:
    /// an answer that was made is delivered again.
    ///
    /// # Errors
    /// Why nothing will be delivered; nothing was charged by this.
    pub async fn prepare_delivery(&self, id: OrderId, request: DeliveryRequest) -> Result<Delivery, DeliverError> {
        if self.clock.now_ms().abs_diff(request.time_ms) > REQUEST_AGE_MS_MAX || !request.verify(&self.chain, &id) {
            return Err(DeliverError::Unauthorised);
        }
        let until_ms = self.clock.now_ms() + READY_WAIT_MS;
        let order = self.order_seen(id, until_ms).await?;
        if order.lane != (Lane::Chosen { provider: self.config.account }) || !self.compute.serves(&order.model) {
            return Err(DeliverError::NotOurs);
        }
        // Before the order is accepted, so that its client can ask somebody else at once.
        if self.result(&id).is_none() {
            self.compute.ready(&order.model).map_err(DeliverError::NotReady)?;
        }
        match self.client.session_key(order.client, request.key).await {
            Ok(key) if key.expires_at_ms > self.clock.now_ms() => {}
            Ok(_) | Err(ClientError::NotFound(_)) => return Err(DeliverError::Unauthorised),
            Err(error) => return Err(error.into()),
        }
        if request.input.len() as u64 > CONTENT_INPUT_BYTES_MAX
            || althing_content::file_cid(&request.input) != order.input_cid
        {
            return Err(DeliverError::WrongInput);
        }
        let done = self.result(&id);
        let mark = match order.state {
            _ if self.is_given_up(&order) => return Err(DeliverError::Over),
            OrderState::Submitted | OrderState::Accepted { .. } => Some(Mark::set(&self.delivering, id)?),
            _ if done.is_some() => None,
            _ => return Err(DeliverError::Over),
        };
        match self.accepted_and_seeded(&order, &request.input, until_ms).await {
            Ok((order, seed)) => Ok(Delivery { order, seed, input: request.input, done, _mark: mark }),
            // It was not accepted, for sure.
            Err(error @ DeliverError::Ledger(_)) => Err(error),
            Err(error) => {
                if done.is_none() {
                    self.give_up(id);
                }
                Err(error)
            }
        }
    }

    /// The order with its seed, after it was accepted.
    async fn accepted_and_seeded(
        &self,
        order: &Order,
        input: &[u8],
        until_ms: u64,
    ) -> Result<(Order, u64), DeliverError> {
        let id = order.id;
        if order.state == OrderState::Submitted {
            // The input first: an accepted order must survive a restart.
            self.content_private.put(input).await?;
            self.send(Call::OrderAccept { order: id }).await?;
        }
        let order = order_until(&*self.client, &*self.clock, id, until_ms, |order| order.seed.is_some()).await?;
        let seed = order.seed.ok_or(DeliverError::NoSeed)?;
        Ok((order, seed))
    }

    /// The order, as soon as this provider's node has it.
    async fn order_seen(&self, id: OrderId, until_ms: u64) -> Result<Order, DeliverError> {
        loop {
            match self.client.order(id).await {
                Err(ClientError::NotFound(_)) if self.clock.now_ms() < until_ms => self.clock.sleep_ms(50).await,
                other => return Ok(other?),
            }
        }
    }

    /// Runs the model and sends the frames. A client that goes away does not end the run: the
    /// order is accepted, and its completion is owed.
    pub async fn deliver(&self, delivery: Delivery, frames: mpsc::UnboundedSender<SignedFrame>) {
        let id = delivery.order.id;
        let mut transcript = Transcript::new(self.chain, id, self.config.account);
        let last = match self.deliver_text(&delivery, &mut transcript, &frames).await {
            Ok(frame) => frame,
            Err(failure) => {
                let Failure { reason, code, message } = failure;
                tracing::warn!(provider = %self.config.account, order = %id.short(), message, "delivery failed");
                self.give_up(id);
                Frame::Failed { reason, code, message }
            }
        };
        let _ = frames.send(transcript.sign(&self.key, last));
    }

    async fn deliver_text(
        &self,
        delivery: &Delivery,
        transcript: &mut Transcript,
        frames: &mpsc::UnboundedSender<SignedFrame>,
    ) -> Result<Frame, Failure> {
        let order = &delivery.order;
        if let Some(done) = delivery.done {
            let output_bytes = self.content_of(order).get(&done.output, 0..=done.output_size, &[]).await;
            let output_bytes = output_bytes.map_err(|error| Failure::of(&error))?;
            if matches!(order.state, OrderState::Accepted { .. }) {
                self.complete_for_sure(&order.id, done).await?;
            }
            return Ok(Frame::Done { output: done.output, output_bytes });
        }
        let (pieces, mut texts) = mpsc::unbounded_channel();
        let run = self.run_model(order.model, delivery.input.clone(), delivery.seed, Some(pieces));
        let run = self.run_in_time(order, run);
        let forward = async {
            while let Some(text) = texts.recv().await {
                let _ = frames.send(transcript.sign(&self.key, Frame::Text { text }));
            }
        };
        let (output_bytes, ()) = futures::future::join(run, forward).await;
        let output_bytes = output_bytes?;
        let content = self.content_of(order);
        let result = self.keep(order.id, content, &output_bytes).await.map_err(|error| Failure::of(&error))?;
        self.complete_for_sure(&order.id, result).await?;
        Ok(Frame::Done { output: result.output, output_bytes })
    }

    /// States an answer on the ledger; a failure means that it is not there.
    async fn complete_for_sure(&self, id: &OrderId, result: RunResult) -> Result<(), Failure> {
        match self.complete(id, result).await {
            Ok(()) => Ok(()),
            Err(error @ SendError::Ledger(_)) => Err(Failure::of(&error)),
            // A block may have it all the same.
            Err(error) => match self.client.order(*id).await {
                Ok(order) if order.solutions.iter().any(|solution| solution.output == result.output) => Ok(()),
                _ => Err(Failure::of(&error)),
            },
        }
    }
}
