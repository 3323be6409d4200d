//! Sends calls for one signer: keeps its nonce in step, waits for receipts.

use crate::{ClientError, Clock, LedgerClient, Signer};
use althing_types::{Address, Call, ChainId, LedgerError, SignedTx, TxId, api::Included};
use std::sync::Arc;
use tokio::sync::Mutex;

/// How long a transaction stays valid after signing, ms.
const VALIDITY_MS: u64 = 60_000;
/// Wait before a transaction that is in no block is handed in again, ms.
const RESUBMIT_AFTER_MS: u64 = 2_000;
/// How long a node may be out of reach while a transaction is waited for, ms.
const UNREACHABLE_MS: u64 = 15_000;
/// How long a nonce that is in use is waited for, and how often it is asked about, ms.
const NONCE_WAIT_MS: u64 = 10_000;
const NONCE_RETRY_MS: u64 = 100;

/// Why a call did not take effect, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The ledger executed the call and refused it: it left no trace.
    #[error("{0}")]
    Ledger(LedgerError),
    /// The node refused the transaction or could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No block included the transaction in time; it may still be included until it expires.
    #[error("transaction {0} was not included in time")]
    Timeout(TxId),
}

/// What became of a signed transaction: certain, and never to change. (T-15)
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // there is one at a time
pub enum Fate {
    /// A finalized block has it; its receipt says whether its call was executed.
    Included(Included),
    /// It is in no block and can never be in one: its nonce was used by another, or its time is over.
    Never,
}

/// Whether a refused transaction may be taken later, or is on its way already.
fn waits(error: &ClientError) -> bool {
    let ClientError::Refused { code, .. } = error else { return true };
    matches!(code.as_str(), "duplicate" | "wrong_nonce" | "expired" | "mempool_full" | "not_ready" | "busy")
}

/// Sends calls in order for one signer. One sender per key: two would fight over the nonce.
pub struct Sender {
    client: Arc<dyn LedgerClient>,
    clock: Arc<dyn Clock>,
    signer: Arc<dyn Signer>,
    chain: ChainId,
    /// The next nonce, `None` until asked or after anything went wrong.
    nonce: Mutex<Option<u64>>,
}

impl Sender {
    /// A sender for `signer` on `chain`.
    pub fn new(client: Arc<dyn LedgerClient>, clock: Arc<dyn Clock>, signer: Arc<dyn Signer>, chain: ChainId) -> Self {
        Self { client, clock, signer, chain, nonce: Mutex::new(None) }
    }

    /// The account that calls act for.
    pub fn account(&self) -> Address {
        self.signer.account()
    }

    /// The signer itself.
    pub fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    async fn nonce_now(&self) -> Result<u64, ClientError> {
        let account = self.signer.account();
        match self.signer.session_key() {
            None => Ok(self.client.account(account).await?.account.nonce),
            Some(key) => Ok(self.client.session_key(account, key).await?.nonce),
        }
    }

    /// Signs a call with the next nonce and sends nothing: for callers that put what they are about to
    /// send on disk first, and bring it to its end with [`Self::settle`], however often they fall in
    /// between. (T-15)
    ///
    /// # Errors
    /// If the node does not say which nonce is next.
    pub async fn sign(&self, call: Call) -> Result<SignedTx, ClientError> {
        let mut next = self.nonce.lock().await;
        *next = None;
        let nonce = self.nonce_now().await?;
        Ok(self.signer.sign(&self.chain, call, nonce, self.clock.now_ms() + VALIDITY_MS))
    }

    /// Hands a signed transaction in, again and again, until it is certain what became of it. The very
    /// same transaction takes effect once at most, so this may be repeated at any time. (T-15)
    ///
    /// # Errors
    /// If the node cannot be reached or refuses it: nothing is certain then, and the call is to be
    /// repeated later.
    pub async fn settle(&self, tx: &SignedTx) -> Result<Fate, ClientError> {
        let id = tx.id(&self.chain);
        let mut lost_since_ms = None;
        loop {
            match self.settle_once(tx, id).await {
                Ok(Some(fate)) => return Ok(fate),
                Ok(None) => lost_since_ms = None,
                Err(error @ ClientError::Unreachable { .. }) => {
                    let now_ms = self.clock.now_ms();
                    if now_ms >= lost_since_ms.get_or_insert(now_ms).saturating_add(UNREACHABLE_MS) {
                        return Err(error);
                    }
                    self.clock.sleep_ms(NONCE_RETRY_MS).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn settle_once(&self, tx: &SignedTx, id: TxId) -> Result<Option<Fate>, ClientError> {
        // Nonce and time before the receipt: a block that used the nonce up, or the last one that could
        // have the transaction, is then among those in which the receipt is looked for.
        let nonce = self.nonce_now().await?;
        let over = nonce > tx.nonce || self.client.status().await?.time_ms >= tx.expires_at_ms;
        let refused = if over { None } else { self.client.submit(tx, 0).await.err() };
        let wait_ms = if over { 0 } else { RESUBMIT_AFTER_MS };
        match self.client.transaction(id, wait_ms).await? {
            Some(included) if included.receipt.error.is_none() => Ok(Some(Fate::Included(included))),
            // What found no room in a block, or came too early, may still be in a later one. (L-1)
            Some(included) if over => self.last_receipt(tx, id, included).await.map(|last| Some(Fate::Included(last))),
            Some(_) => {
                self.clock.sleep_ms(NONCE_RETRY_MS).await;
                Ok(None)
            }
            None if over => Ok(Some(Fate::Never)),
            None => match refused {
                Some(error @ ClientError::Refused { .. }) if !waits(&error) => Err(error),
                _ => Ok(None),
            },
        }
    }

    /// The last receipt of a transaction that has one with an error: blocks after that one may have it
    /// again if it left no trace.
    async fn last_receipt(&self, tx: &SignedTx, id: TxId, first: Included) -> Result<Included, ClientError> {
        let tip = self.client.status().await?.height;
        let mut last = first;
        for height in last.height + 1..=tip {
            let block = self.client.block(height).await?;
            if block.time_ms >= tx.expires_at_ms {
                break;
            }
            if let Some(receipt) = block.receipts.into_iter().find(|receipt| receipt.id == id) {
                last = Included { height, time_ms: block.time_ms, receipt };
            }
        }
        Ok(last)
    }

    /// Signs and submits a call; returns as soon as the mempool has it. Calls of one sender enter
    /// the mempool in the order of these calls.
    ///
    /// # Errors
    /// [`SendError::Client`]; nothing was sent then, unless the node became unreachable.
    pub async fn submit(&self, call: Call) -> Result<SignedTx, SendError> {
        let mut next = self.nonce.lock().await;
        let give_up_ms = self.clock.now_ms() + NONCE_WAIT_MS;
        loop {
            let nonce = match *next {
                Some(nonce) => nonce,
                None => self.nonce_now().await?,
            };
            *next = None;
            let tx = self.signer.sign(&self.chain, call.clone(), nonce, self.clock.now_ms() + VALIDITY_MS);
            match self.client.submit(&tx, 0).await {
                Ok(_) => {
                    *next = Some(nonce + 1);
                    return Ok(tx);
                }
                // After a restart of either side, transactions sent before may still be waiting.
                Err(ClientError::Refused { code, .. }) if code == "wrong_nonce" && self.clock.now_ms() < give_up_ms => {
                    self.clock.sleep_ms(NONCE_RETRY_MS).await;
                }
                Err(error) => {
                    if matches!(&error, ClientError::Refused { code, .. } if code != "wrong_nonce") {
                        *next = Some(nonce);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Sends a call and waits until a finalized block executed it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, call: Call) -> Result<Included, SendError> {
        let tx = self.submit(call).await?;
        self.wait(&tx).await
    }

    /// Waits for a transaction sent before, until it expires. A node that fell forgets what was
    /// waiting, so the very same transaction is handed in again from time to time: it can take
    /// effect once only.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn wait(&self, tx: &SignedTx) -> Result<Included, SendError> {
        let id = tx.id(&self.chain);
        let mut lost_since_ms = None;
        loop {
            match self.client.transaction(id, RESUBMIT_AFTER_MS).await {
                Ok(Some(included)) => {
                    return match included.receipt.error.clone() {
                        None => Ok(included),
                        Some(error) => Err(SendError::Ledger(error)),
                    };
                }
                Ok(None) => {
                    lost_since_ms = None;
                    // Refused as a duplicate, or because a block has it by now: the next look tells.
                    let _ = self.client.submit(tx, 0).await;
                }
                Err(error) => {
                    let now_ms = self.clock.now_ms();
                    if now_ms >= lost_since_ms.get_or_insert(now_ms).saturating_add(UNREACHABLE_MS) {
                        *self.nonce.lock().await = None;
                        return Err(error.into());
                    }
                    self.clock.sleep_ms(NONCE_RETRY_MS).await;
                }
            }
            if self.clock.now_ms() > tx.expires_at_ms {
                *self.nonce.lock().await = None;
                return Err(SendError::Timeout(id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventStream, OrderFilter, WalletSigner};
    use althing_types::{
        Account, Amount, Case, Hash, Model, Order, OrderId, Params, Provider, SessionKey, SessionPublicKey, TxReceipt,
        api::{AccountView, BlockView, Emission, OrderProof, Status, Submitted, Supply},
    };
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A clock that moves when it is waited for.
    struct Waits(AtomicU64);

    #[async_trait]
    impl Clock for Waits {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
        async fn sleep_ms(&self, duration_ms: u64) {
            self.0.fetch_add(duration_ms, Ordering::Relaxed);
        }
    }

    /// Receipts of a block, and the nonce after it.
    type Scripted = (Vec<(TxId, Option<LedgerError>)>, u64);

    /// A node whose blocks come every second and were written down before: each has the receipts named,
    /// with the error if there is one, and leaves the nonce named behind.
    struct Script {
        clock: Arc<Waits>,
        blocks: Vec<Scripted>,
        refusal: Option<&'static str>,
    }

    impl Script {
        fn tip(&self) -> u64 {
            (self.clock.now_ms() / 1_000).min(self.blocks.len() as u64 - 1)
        }
        fn included(&self, height: u64, id: TxId) -> Option<Included> {
            let (receipts, _) = &self.blocks[height as usize];
            let (_, error) = receipts.iter().find(|(found, _)| *found == id)?;
            let (sender, fee, call, events) = (Address::ZERO, Amount::ZERO, String::new(), Vec::new());
            let receipt = TxReceipt { id, sender, call, fee, error: error.clone(), order: None, events };
            Some(Included { height, time_ms: height * 1_000, receipt })
        }
    }

    /// What the sender has no business to ask.
    fn unscripted<T>() -> Result<T, ClientError> {
        Err(ClientError::NotFound("what no script has".into()))
    }

    #[async_trait]
    impl LedgerClient for Script {
        async fn status(&self) -> Result<Status, ClientError> {
            Ok(Status {
                chain: ChainId::ZERO,
                network: String::new(),
                height: self.tip(),
                time_ms: self.clock.now_ms(),
                active_ms: 0,
                state_root: Hash::ZERO,
                network_key: String::new(),
                coordinators: 1,
                peers: 0,
                mempool: 0,
                version: String::new(),
            })
        }
        async fn submit(&self, tx: &SignedTx, _: u64) -> Result<Submitted, ClientError> {
            match self.refusal {
                None => Ok(Submitted { id: tx.id(&ChainId::ZERO), included: None }),
                Some(code) => Err(ClientError::Refused { code: code.into(), message: String::new() }),
            }
        }
        async fn transaction(&self, id: TxId, wait_ms: u64) -> Result<Option<Included>, ClientError> {
            // The first receipt of it, as a node's history may give it.
            let first = (0..=self.tip()).find_map(|height| self.included(height, id));
            if first.is_none() {
                self.clock.sleep_ms(wait_ms).await;
            }
            Ok(first)
        }
        async fn account(&self, address: Address) -> Result<AccountView, ClientError> {
            let account = Account { nonce: self.blocks[self.tip() as usize].1, ..Account::default() };
            Ok(AccountView { address, account, ..AccountView::default() })
        }
        async fn block(&self, height: u64) -> Result<BlockView, ClientError> {
            let ids: Vec<TxId> = self.blocks[height as usize].0.iter().map(|(id, _)| *id).collect();
            let receipts = ids.into_iter().filter_map(|id| self.included(height, id)).map(|i| i.receipt).collect();
            let (hash, time_ms) = (Hash::ZERO, height * 1_000);
            let (digest, parent, beacon, state_root) = (hash, hash, hash, hash);
            Ok(BlockView { height, time_ms, view: height, digest, parent, beacon, state_root, receipts })
        }
        async fn session_key(&self, _: Address, _: SessionPublicKey) -> Result<SessionKey, ClientError> {
            unscripted()
        }
        async fn models(&self) -> Result<Vec<Model>, ClientError> {
            unscripted()
        }
        async fn emission(&self) -> Result<Emission, ClientError> {
            unscripted()
        }
        async fn model(&self, _: &str) -> Result<Model, ClientError> {
            unscripted()
        }
        async fn providers(&self) -> Result<Vec<Provider>, ClientError> {
            unscripted()
        }
        async fn provider(&self, _: Address) -> Result<Provider, ClientError> {
            unscripted()
        }
        async fn orders(&self, _: OrderFilter) -> Result<Vec<Order>, ClientError> {
            unscripted()
        }
        async fn order(&self, _: OrderId) -> Result<Order, ClientError> {
            unscripted()
        }
        async fn cases(&self) -> Result<Vec<Case>, ClientError> {
            unscripted()
        }
        async fn case(&self, _: OrderId) -> Result<Case, ClientError> {
            unscripted()
        }
        async fn params(&self) -> Result<Params, ClientError> {
            unscripted()
        }
        async fn supply(&self) -> Result<Supply, ClientError> {
            unscripted()
        }
        async fn events(&self, _: u64) -> Result<EventStream, ClientError> {
            unscripted()
        }
        async fn order_proof(&self, _: OrderId) -> Result<OrderProof, ClientError> {
            unscripted()
        }
    }

    /// T-15: nothing is called certain that may still change.
    #[tokio::test]
    async fn what_became_of_a_transaction_is_said_when_it_is_certain() {
        let signer = Arc::new(WalletSigner::from_secret([1; 32]).unwrap());
        let call = Call::Transfer { to: Address::ZERO, amount: Amount(1) };
        let tx = signer.sign(&ChainId::ZERO, call, 5, 10_000);
        let id = tx.id(&ChainId::ZERO);
        let idle = |nonce| (vec![], nonce);
        let done = |nonce| (vec![(id, None)], nonce);
        let failed = |error, nonce| (vec![(id, Some(error))], nonce);
        let (full, zero) = (LedgerError::BlockFull, LedgerError::ZeroAmount);
        // what blocks have, what the node says to the transaction, height and error of the receipt
        let rows = [
            (vec![idle(5), idle(5), done(6)], None, Ok(Some((2, None)))),
            (vec![idle(5), failed(zero.clone(), 6)], None, Ok(Some((1, Some(zero))))),
            (vec![idle(5), failed(full.clone(), 5), idle(5), done(6)], None, Ok(Some((3, None)))),
            (vec![idle(5), failed(full.clone(), 5), idle(6)], None, Ok(Some((1, Some(full))))),
            (vec![idle(5), idle(6)], Some("wrong_nonce"), Ok(None)),
            (vec![idle(5); 20], Some("duplicate"), Ok(None)),
            (vec![idle(5)], Some("rejected"), Err("rejected")),
            (vec![done(6)], Some("rejected"), Ok(Some((0, None)))),
        ];
        for (row, (blocks, refusal, expected)) in rows.into_iter().enumerate() {
            let clock = Arc::new(Waits(AtomicU64::new(0)));
            let script = Arc::new(Script { clock: clock.clone(), blocks, refusal });
            let sender = Sender::new(script, clock, signer.clone(), ChainId::ZERO);
            let got = match sender.settle(&tx).await {
                Ok(Fate::Included(included)) => Ok(Some((included.height, included.receipt.error))),
                Ok(Fate::Never) => Ok(None),
                Err(ClientError::Refused { .. }) => Err("rejected"),
                Err(error) => panic!("row {row}: {error}"),
            };
            assert_eq!(got, expected, "row {row}");
        }
    }
}
