//! The ledger as the chain's [`Machine`].

use althing_chain::{BlockContext, BlockOutput, Machine, SenderId, StateRead, TxMeta};
use althing_ledger::{GenesisError, PROTOCOL_VERSION, can_run, check_for_mempool, execute_block, genesis_state, query};
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
    /// The newest version of the protocol that this program can run. (G-2)
    supported: u32,
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
        Self::supporting(genesis, PROTOCOL_VERSION)
    }

    /// The same, running versions of the protocol up to `supported`: tests play older programs. (G-2)
    ///
    /// # Errors
    /// If the genesis is not sound.
    pub fn supporting(genesis: &Genesis, supported: u32) -> Result<Self, GenesisError> {
        Ok(Self { chain: genesis.chain_id(), genesis: genesis_state(genesis)?, supported })
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

    /// (G-2)
    fn can_run(&self, state: &dyn StateRead, next_height: u64) -> Result<(), String> {
        can_run(&LedgerState(state), next_height, self.supported).map_err(|needed| needed.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;
    use althing_ledger::TREASURY;
    use althing_types::{Amount, Call, profile};

    fn genesis() -> Genesis {
        let params = profile::parse(profile::DEFAULT, true).unwrap().params;
        let costs = [params.base_fee_byte, params.base_fee_unit];
        assert!(costs.iter().any(|cost| !cost.is_zero()), "else the zeros below change nothing");
        Genesis {
            network: "test".into(),
            time_ms: 1_000,
            coordinators: String::new(),
            accounts: Vec::new(),
            models: Vec::new(),
            voters: Vec::new(),
            coordinator_accounts: Vec::new(),
            params: althing_types::Params { base_fee_byte: Amount::ZERO, base_fee_unit: Amount::ZERO, ..params },
        }
    }

    /// Executes the block at `height` on `state`, with a call of the governor's; no key could sign that.
    fn run(machine: &LedgerMachine, state: &mut BTreeMap<Vec<u8>, Vec<u8>>, height: u64, call: Option<Call>) {
        let auth = Auth::Wallet { account: TREASURY, signature: [0; 65] };
        let tx = |call| encode(&SignedTx { call, nonce: 0, expires_at_ms: u64::MAX, auth });
        let ctx = BlockContext {
            height,
            time_ms: 1_000 + height,
            view: height,
            beacon: [0; 32],
            parent_beacon_view: height - 1,
        };
        let txs: Vec<_> = call.map(tx).into_iter().collect();
        let output = machine.execute(state, &ctx, &txs);
        for receipt in &output.receipts {
            assert_eq!(althing_types::decode::<althing_types::TxReceipt>(receipt).unwrap().error, None);
        }
        for (key, value) in output.writes {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
    }

    /// G-2: the old program has every block below the height, and says what to do; the new one goes on.
    #[test]
    fn a_program_runs_no_block_of_a_version_that_it_does_not_support() {
        let genesis = genesis();
        let old = LedgerMachine::supporting(&genesis, 1).unwrap();
        let new = LedgerMachine::supporting(&genesis, 2).unwrap();
        let mut state = Machine::genesis(&old);
        run(&old, &mut state, 1, Some(Call::UpgradeSchedule { version: 2, height: 4 }));
        for height in 2..4 {
            assert_eq!((old.can_run(&state, height), new.can_run(&state, height)), (Ok(()), Ok(())));
            run(&old, &mut state, height, None);
        }
        let expected = "this program supports protocol version 1; version 2 comes into force at height 4: \
                        install the new program and start again";
        assert_eq!(old.can_run(&state, 4).unwrap_err(), expected);
        run(&new, &mut state, 4, None);
        assert_eq!(query::version(&LedgerState(&state)), 2);
        assert_eq!((old.can_run(&state, 5).unwrap_err().as_str(), new.can_run(&state, 5)), (expected, Ok(())));
    }
}
