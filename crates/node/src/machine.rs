//! The ledger as the chain's [`Machine`].

use althing_chain::{BlockContext, BlockOutput, Machine, SenderId, StateRead, TxMeta};
use althing_ledger::{GenesisError, check_for_mempool, execute_block, genesis_state, query};
use althing_types::{Address, Auth, ChainId, Event, Genesis, Hash, SessionPublicKey, SignedTx, encode, tx::verify_all};
use std::collections::BTreeMap;

/// A state as the ledger reads it.
pub struct LedgerState<'a>(pub &'a dyn StateRead);

impl althing_ledger::StateRead for LedgerState<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.0.scan(from, to, limit)
    }
}

/// The ledger of one network.
pub struct LedgerMachine {
    chain: ChainId,
    genesis: BTreeMap<Vec<u8>, Vec<u8>>,
}

const WALLET: u8 = 0;
const SESSION: u8 = 1;

/// Wallets and session keys count their nonces apart.
fn sender_id(auth: &Auth) -> SenderId {
    let mut id = [0; 53];
    match auth {
        Auth::Wallet { account, .. } => {
            id[0] = WALLET;
            id[1..21].copy_from_slice(account.as_bytes());
        }
        Auth::Session { account, key, .. } => {
            id[0] = SESSION;
            id[1..21].copy_from_slice(account.as_bytes());
            id[21..].copy_from_slice(key.as_bytes());
        }
    }
    id
}

impl LedgerMachine {
    /// The ledger that starts with `genesis`.
    ///
    /// # Errors
    /// If the genesis is not sound.
    pub fn new(genesis: &Genesis) -> Result<Self, GenesisError> {
        Ok(Self { chain: genesis.chain_id(), genesis: genesis_state(genesis)? })
    }

    fn meta(&self, tx: &SignedTx) -> TxMeta {
        TxMeta {
            id: tx.id(&self.chain).0,
            sender: sender_id(&tx.auth),
            nonce: tx.nonce,
            expires_at_ms: tx.expires_at_ms,
            priority: 0,
        }
    }
}

impl Machine for LedgerMachine {
    fn genesis(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.genesis.clone()
    }

    fn check_stateless(&self, tx: &[u8]) -> Result<TxMeta, String> {
        let tx = SignedTx::decode(tx).map_err(|error| error.to_string())?;
        tx.verify(&self.chain).map_err(|error| error.to_string())?;
        Ok(self.meta(&tx))
    }

    fn inspect(&self, tx: &[u8]) -> Result<TxMeta, String> {
        SignedTx::decode(tx).map(|tx| self.meta(&tx)).map_err(|error| error.to_string())
    }

    fn verify_batch(&self, txs: &[Vec<u8>]) -> Result<(), usize> {
        let mut decoded = Vec::with_capacity(txs.len());
        for (position, tx) in txs.iter().enumerate() {
            decoded.push(SignedTx::decode(tx).map_err(|_| position)?);
        }
        verify_all(&decoded, &self.chain, rand::rng()).map_err(|(position, _)| position)
    }

    fn next_nonce(&self, state: &dyn StateRead, sender: &SenderId) -> u64 {
        let state = LedgerState(state);
        let mut account = Address::ZERO;
        account.0.copy_from_slice(&sender[1..21]);
        if sender[0] == WALLET {
            return query::account(&state, &account).nonce;
        }
        let mut key = SessionPublicKey::ZERO;
        key.0.copy_from_slice(&sender[21..]);
        // A key that is gone has no next transaction.
        query::session_key(&state, &account, &key).map_or(u64::MAX, |key| key.nonce)
    }

    fn wants_block(&self, state: &dyn StateRead) -> bool {
        query::wants_beacon(&LedgerState(state))
    }

    fn check_mempool(&self, state: &dyn StateRead, tx: &[u8]) -> Result<(), String> {
        let tx = SignedTx::decode(tx).map_err(|error| error.to_string())?;
        check_for_mempool(&LedgerState(state), &tx).map_err(|error| error.to_string())
    }

    fn execute(&self, state: &dyn StateRead, ctx: &BlockContext, txs: &[Vec<u8>]) -> BlockOutput {
        let block = althing_ledger::BlockContext {
            chain: self.chain,
            height: ctx.height,
            time_ms: ctx.time_ms,
            view: ctx.view,
            beacon: Hash(ctx.beacon),
            beacon_view: ctx.parent_beacon_view,
        };
        let txs: Vec<_> = txs
            .iter()
            .map(|tx| SignedTx::decode(tx).expect("blocks hold only transactions that `inspect` accepted"))
            .collect();
        let output = execute_block(&LedgerState(state), &block, &txs);
        // Orders leave the state long after their last change, so the state before this block has
        // them as they ended.
        let pruned = output.events.iter().filter_map(|event| match event {
            Event::OrderPruned { order } => query::order(&LedgerState(state), order),
            _ => None,
        });
        BlockOutput {
            archived: pruned.map(|order| (order.id.0, encode(&order))).collect(),
            writes: output.writes,
            receipts: output.receipts.iter().map(encode).collect(),
            events: output.events.iter().map(encode).collect(),
        }
    }
}
