//! When blocks are made: at once while there is work, seldom while there is none.
//!
//! The wait happens before a proposal reaches the application. The application is one task; while
//! it waited, it could not finalize the block before, and everybody would learn of that block only
//! when the next one was due.

use crate::{
    application::now_ms,
    block::{ConsensusContext, Digest, Header},
    shared::Shared,
};
use commonware_consensus::{Automaton, CertifiableAutomaton, Handoff, types::Round};
use commonware_runtime::{Clock, Spawner};
use commonware_utils::channel::oneshot;
use futures::future::{Either, select};
use std::{pin::pin, sync::Arc, time::Duration};

/// What the wait before a block depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent {
    pub(crate) height: u64,
    pub(crate) time_ms: u64,
    pub(crate) state_root: [u8; 32],
}

impl From<&Header> for Parent {
    fn from(header: &Header) -> Self {
        Self { height: header.height, time_ms: header.time_ms, state_root: header.state_root }
    }
}

/// Waits until it is time for a block after `parent`.
pub(crate) async fn pace(shared: &Shared, clock: &impl Clock, parent: Parent) {
    let pacing = shared.pacing;
    let start_ms = now_ms(clock);
    // A parent from the future must not make the wait longer than usual.
    let since_ms = parent.time_ms.min(start_ms);
    loop {
        let version = shared.pool_version.get();
        let now_ms = now_ms(clock);
        let time_ms = parent.time_ms.saturating_add(1).max(now_ms);
        let wait_ms = match shared.has_work(&parent.state_root, time_ms) {
            true => pacing.block_interval_ms_min,
            false => pacing.block_interval_ms_idle,
        };
        let left_ms = since_ms.saturating_add(wait_ms).saturating_sub(now_ms);
        if left_ms == 0 {
            return;
        }
        let sleep = pin!(clock.sleep(Duration::from_millis(left_ms)));
        let changed = shared.pool_version.until(|now| (now != version).then_some(()));
        select(sleep, pin!(changed)).await;
    }
}

/// An automaton whose proposals wait for their time.
pub(crate) struct Paced<E, A> {
    context: Arc<E>,
    shared: Arc<Shared>,
    inner: A,
}

impl<E, A: Clone> Clone for Paced<E, A> {
    fn clone(&self) -> Self {
        Self { context: self.context.clone(), shared: self.shared.clone(), inner: self.inner.clone() }
    }
}

impl<E, A> Paced<E, A> {
    pub(crate) fn new(context: E, shared: Arc<Shared>, inner: A) -> Self {
        Self { context: Arc::new(context), shared, inner }
    }
}

impl<E, A> Automaton for Paced<E, A>
where
    E: Clock + Spawner,
    A: Automaton<Context = ConsensusContext, Digest = Digest>,
{
    type Context = ConsensusContext;
    type Digest = Digest;

    #[allow(clippy::async_yields_async)]
    async fn propose(&mut self, context: ConsensusContext) -> oneshot::Receiver<Digest> {
        let (mut sender, receiver) = oneshot::channel();
        let (shared, mut inner) = (self.shared.clone(), self.inner.clone());
        self.context.child("proposal").spawn(move |clock| async move {
            // A parent that is not known yet is waited for, and paced, by the application.
            if let Some(parent) = shared.parent(&context.parent.1.0) {
                if shared.refusal(&parent).is_some() {
                    // Not answering lets the view time out; an answer would begin the next one at once.
                    return sender.closed().await;
                }
                let abandoned = pin!(sender.closed());
                if let Either::Left(_) = select(abandoned, pin!(pace(&shared, &clock, parent))).await {
                    return;
                }
            }
            let proposed = inner.propose(context).await;
            let digest = match select(pin!(sender.closed()), proposed).await {
                Either::Right((Ok(digest), _)) => digest,
                _ => return,
            };
            let _ = sender.send(digest);
        });
        receiver
    }

    async fn verify(&mut self, context: ConsensusContext, payload: Digest) -> oneshot::Receiver<bool> {
        self.inner.verify(context, payload).await
    }
}

impl<E, A> CertifiableAutomaton for Paced<E, A>
where
    E: Clock + Spawner,
    A: CertifiableAutomaton<Context = ConsensusContext, Digest = Digest>,
{
    async fn prepare(&mut self, context: ConsensusContext) -> oneshot::Receiver<Handoff<Digest>> {
        self.inner.prepare(context).await
    }

    async fn certify(&mut self, round: Round, payload: Digest) -> oneshot::Receiver<bool> {
        self.inner.certify(round, payload).await
    }
}
