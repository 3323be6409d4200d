//! A ledger under test: blocks of calls, one row a call, with every invariant checked after each.

#![allow(dead_code)] // each test file uses its own part

use althing_ledger::{BlockContext, BlockOutput, apply, execute_block, genesis_state, invariants, query};
use althing_types::{
    Address, Amount, Auth, BallotAnswer, Call, Case, Cid, Event, Genesis, Hash, Input, Lane, LedgerError, ModelId,
    Order, OrderId, OrderState, Params, SessionPublicKey, SignedTx, TxReceipt, Verification,
    call::OrderSubmit,
    commitment::{ballot_hash, commitment_hash},
    genesis::{GenesisAccount, GenesisModel},
    profile,
};
use std::collections::BTreeMap;

pub const CLIENT: Address = Address([0xc1; 20]);
pub const OWNER: Address = Address([0x0e; 20]);
pub const PAYEE: Address = Address([0x0f; 20]);
pub const START_MS: u64 = 1_800_000_000_000;

/// What a committed vote says: an output by name.
pub fn says(name: &str) -> BallotAnswer {
    BallotAnswer::Output { output: output(name) }
}

pub fn salt(who: Address, round: u8) -> Hash {
    Hash::of(&[who.as_bytes(), &[round]])
}

pub fn open_call(id: OrderId, who: Address, round: u8, answer: BallotAnswer) -> Call {
    Call::VoteOpen { order: id, answer, salt: salt(who, round) }
}

/// Provider number `n`.
pub fn provider(n: u8) -> Address {
    Address([n; 20])
}

pub fn alth(text: &str) -> Amount {
    text.parse().unwrap()
}

pub fn output(name: &str) -> Cid {
    althing_content::file_cid(name.as_bytes())
}

#[derive(Clone)]
pub struct Net {
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub block: BlockContext,
    pub events: Vec<Event>,
    pub model: ModelId,
    pub unverifiable: ModelId,
    nonces: BTreeMap<Address, u64>,
}

/// The default profile with round windows, open votes and without costs: 8 s to challenge, 8 s to
/// vote.
pub fn params() -> Params {
    let params = profile::parse(profile::DEFAULT, true).unwrap().params;
    Params {
        voting_period_ms: 8_000,
        votes_committed: false,
        base_fee_byte: Amount::ZERO,
        base_fee_unit: Amount::ZERO,
        deposit_object: Amount::ZERO,
        ..params
    }
}

/// The same with committed votes: 8 s to commit, 3 s to open.
pub fn params_committed() -> Params {
    Params { votes_committed: true, ..params() }
}

impl Net {
    /// A client with 1000 tokens, `providers` with a bond of 1000 each and 100 free, a model
    /// `exact` at 1 token a run, and a model `loose` without verification.
    pub fn new(providers: u8) -> Self {
        Self::with(providers, "1000", params())
    }

    pub fn with(providers: u8, bond: &str, params: Params) -> Self {
        Self::of(&Self::genesis(providers, bond, params), providers)
    }

    pub fn genesis(providers: u8, bond: &str, params: Params) -> Genesis {
        let account = |address, free: &str, bond: &str| GenesisAccount {
            address,
            free: alth(free),
            bond: alth(bond),
            session_keys: Vec::new(),
            assets: Vec::new(),
        };
        let model = |name: &str, verification| GenesisModel {
            name: name.into(),
            owner: OWNER,
            package: output(name),
            fee: alth("1"),
            payee: PAYEE,
            verification,
            reward: None,
        };
        let models = vec![model("exact", Verification::Exact), model("loose", Verification::None)];
        Genesis {
            network: "test".into(),
            time_ms: START_MS,
            coordinators: String::new(),
            accounts: [account(CLIENT, "1000", "0")]
                .into_iter()
                .chain((1..=providers).map(|n| account(provider(n), "100", bond)))
                .collect(),
            models,
            voters: Vec::new(),
            coordinator_accounts: Vec::new(),
            params,
        }
    }

    /// A network of a genesis whose first model is run by `providers` and whose second cannot be
    /// verified.
    pub fn of(genesis: &Genesis, providers: u8) -> Self {
        let models = &genesis.models;
        let mut net = Self {
            state: genesis_state(genesis).unwrap(),
            block: BlockContext {
                chain: genesis.chain_id(),
                height: 0,
                time_ms: START_MS,
                view: 0,
                beacon: Hash::ZERO,
                beacon_view: 0,
            },
            events: Vec::new(),
            model: models[0].id(),
            unverifiable: models[1].id(),
            nonces: BTreeMap::new(),
        };
        let support = Call::ModelSupport { models: vec![net.model], endpoint: "http://127.0.0.1:1".into() };
        // Where bonds are required, who has none is refused.
        net.block((1..=providers).map(|n| (provider(n), support.clone())).collect());
        net
    }

    /// Executes one block `after_ms` later, checks all invariants, and returns its output.
    pub fn block_after(&mut self, after_ms: u64, calls: Vec<(Address, Call)>) -> BlockOutput {
        let step_max = query::params(&self.state).active_step_ms_max;
        if after_ms > step_max {
            self.jump(step_max, Vec::new());
            return self.block_after(after_ms - step_max, calls);
        }
        self.jump(after_ms, calls)
    }

    /// The same in one block, however long that is: a standstill.
    pub fn jump(&mut self, after_ms: u64, calls: Vec<(Address, Call)>) -> BlockOutput {
        let txs = calls.into_iter().map(|(sender, call)| self.tx(sender, call)).collect();
        self.jump_txs(after_ms, txs)
    }

    /// The same with transactions that are made already.
    pub fn jump_txs(&mut self, after_ms: u64, txs: Vec<SignedTx>) -> BlockOutput {
        self.block.height += 1;
        self.block.time_ms += after_ms;
        self.block.view += 1;
        self.block.beacon_view = self.block.view - 1;
        self.block.beacon = Hash::of(&[b"beacon", &self.block.beacon_view.to_be_bytes()]);
        let output = execute_block(&self.state, &self.block, &txs);
        let again = execute_block(&self.state, &self.block, &txs);
        assert_eq!(output, again, "executing a block twice gives the same result");
        apply(&mut self.state, output.writes.clone());
        invariants::check(&self.state).unwrap();
        self.events.extend(output.events.iter().cloned());
        output
    }

    /// The ledger does not check signatures, so these are empty.
    pub fn tx(&mut self, sender: Address, call: Call) -> SignedTx {
        let nonce = self.nonces.entry(sender).or_default();
        let auth = Auth::Wallet { account: sender, signature: [0; 65] };
        let tx = SignedTx { call, nonce: *nonce, expires_at_ms: u64::MAX, auth };
        *nonce += 1;
        tx
    }

    /// One transaction of a session key in a block of its own.
    pub fn by_session(&mut self, account: Address, key: SessionPublicKey, nonce: u64, call: Call) -> TxReceipt {
        let auth = Auth::Session { account, key, signature: [0; 64] };
        let tx = SignedTx { call, nonce, expires_at_ms: u64::MAX, auth };
        self.jump_txs(100, vec![tx]).receipts.remove(0)
    }

    /// One block, 100 ms later; the result of each call in order.
    pub fn block(&mut self, calls: Vec<(Address, Call)>) -> Vec<Result<(), LedgerError>> {
        let receipts = self.block_after(100, calls).receipts;
        receipts.into_iter().map(|r| r.error.map_or(Ok(()), Err)).collect()
    }

    /// One block whose calls must all succeed.
    pub fn ok(&mut self, calls: Vec<(Address, Call)>) {
        for (position, result) in self.block(calls).into_iter().enumerate() {
            assert_eq!(result, Ok(()), "call {position}");
        }
    }

    /// One call in a block of its own.
    pub fn call(&mut self, sender: Address, call: Call) -> Result<(), LedgerError> {
        self.block(vec![(sender, call)]).remove(0)
    }

    /// An empty block `after_ms` later.
    pub fn wait(&mut self, after_ms: u64) {
        self.block_after(after_ms, Vec::new());
    }

    /// Submits an order and waits for its seed.
    pub fn order(&mut self, submit: OrderSubmit) -> OrderId {
        let output = self.block_after(100, vec![(CLIENT, Call::OrderSubmit(submit))]);
        assert_eq!(output.receipts[0].error, None);
        let id = output.receipts[0].order.unwrap();
        self.until(|net| net.get(&id).seed);
        id
    }

    /// An open order of 4 tokens, 1 of them the model's.
    pub fn open_order(&mut self) -> OrderId {
        let submit = self.submit("4");
        self.order(submit)
    }

    pub fn submit(&self, fee: &str) -> OrderSubmit {
        OrderSubmit {
            model: self.model,
            input: Input::Inline { bytes: b"a fox".to_vec() },
            fee: alth(fee),
            max_total: alth(fee),
            lane: Lane::Open,
            deadline_ms: self.block.time_ms + 60_000,
            seed: None,
            agreements: 1,
            parent: None,
            budget: None,
        }
    }

    pub fn get(&self, id: &OrderId) -> Order {
        query::order(&self.state, id).unwrap()
    }

    pub fn case(&self, id: &OrderId) -> Case {
        query::case(&self.state, id).unwrap()
    }

    pub fn state_params(&self) -> Params {
        query::params(&self.state)
    }

    pub fn free(&self, address: Address) -> Amount {
        query::account(&self.state, &address).free
    }

    pub fn bond(&self, address: Address) -> Amount {
        query::provider(&self.state, &address).unwrap().bond
    }

    pub fn commit_call(&self, id: OrderId, who: Address, answer: &str) -> Call {
        let hash = commitment_hash(&self.block.chain, &id, &who, &output(answer), 7, &Hash([who.0[0]; 32]));
        Call::OrderCommit { order: id, commitment: hash }
    }

    pub fn reveal_call(&self, id: OrderId, who: Address, answer: &str) -> Call {
        Call::OrderReveal { order: id, output: output(answer), output_size: 7, salt: Hash([who.0[0]; 32]) }
    }

    /// Commits and reveals in two blocks.
    pub fn solve(&mut self, id: OrderId, who: Address, answer: &str) {
        let commit = self.commit_call(id, who, answer);
        let reveal = self.reveal_call(id, who, answer);
        self.ok(vec![(who, commit)]);
        self.ok(vec![(who, reveal)]);
    }

    /// Waits for an order's seed, has it solved and claimed; what was minted for it.
    pub fn minted(&mut self, id: OrderId) -> Option<Amount> {
        self.until(|net| net.get(&id).seed);
        self.solve(id, provider(1), "a");
        self.events.clear();
        self.wait(8_000);
        assert_eq!(self.get(&id).state, OrderState::Claimed);
        self.events.iter().find_map(|event| match event {
            Event::Minted { amount, .. } => Some(*amount),
            _ => None,
        })
    }

    /// The ballot of a committed vote, with a salt that its voter and round give.
    pub fn ballot(&self, id: OrderId, who: Address, round: u8, answer: BallotAnswer) -> Hash {
        ballot_hash(&self.block.chain, &id, round, &who, &answer, &salt(who, round))
    }

    pub fn contest_call(&self, id: OrderId, who: Address, answer: &str) -> Call {
        Call::Contest { order: id, ballot: Some(self.ballot(id, who, 0, says(answer))) }
    }

    /// Waits until the jury of a contested order is drawn; its members.
    pub fn jury(&mut self, id: OrderId) -> Vec<Address> {
        let seats = self.until(|net| query::case(&net.state, &id).unwrap().jury.unwrap().seats);
        seats.iter().map(|juror| juror.provider).collect()
    }

    /// Waits for something that comes within a few blocks.
    pub fn until<T>(&mut self, found: impl Fn(&Self) -> Option<T>) -> T {
        for _ in 0..20 {
            if let Some(found) = found(self) {
                return found;
            }
            self.wait(100);
        }
        panic!("it did not come");
    }

    pub fn agree(&mut self, id: OrderId, who: Address, answer: &str) -> Result<(), LedgerError> {
        self.call(who, Call::Agree { order: id, output: output(answer) })
    }
}
