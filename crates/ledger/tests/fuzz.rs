//! Mutated and made-up transactions: decoding never fails but with an error, executing never breaks an
//! invariant, and what decodes encodes to the same bytes.
//!
//! A short run by default; `ALTHING_FUZZ_SECONDS=600` runs longer, and a failure prints the seed that
//! `ALTHING_SEED=…` repeats.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::{TREASURY, apply, execute_block, invariants, query};
use althing_types::{
    Address, Amount, AssetId, Auth, BallotAnswer, Call, ContentSource, Hash, Input, ModelReward, OrderId, ParamChange,
    Ppm, SignedTx, VoteChoice, call::OrderBudget, commitment::ballot_hash, encode, object::INLINE_INPUT_BYTES_MAX,
    params::PARAMS,
};
use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};
use support::*;

/// Numbers that a seed determines (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
    /// Amounts at the edges, and between.
    fn amount(&mut self) -> Amount {
        match self.below(8) {
            0 => Amount(0),
            1 => Amount(1),
            2 => Amount(u128::MAX),
            3 => Amount(u128::from(self.next())),
            _ => Amount(Amount::TOKEN.0 / 100 * u128::from(self.next() % 20_000)),
        }
    }
}

const PROVIDERS: u8 = 5;

struct World {
    net: Net,
    random: Random,
    orders: Vec<OrderId>,
    corpus: Vec<Vec<u8>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let params = althing_types::Params {
            due_items_max: 3,
            order_retention_ms: 20_000,
            proposal_voting_ms: 3_000,
            proposal_timelock_ms: 1_000,
            proposal_quorum_min: Amount(1),
            deposit_object: Amount(7),
            base_fee_unit: Amount(3),
            emission_halving_ms: 600_000,
            ..if seed.is_multiple_of(2) { params_committed() } else { params() }
        };
        let mut genesis = Net::genesis(PROVIDERS, "900", params);
        genesis.coordinator_accounts = vec![provider(1), provider(2), CLIENT];
        genesis.models[0].reward = Some(ModelReward { rate: 1_000_000, unit_bytes: 7 });
        let net = Net::of(&genesis, PROVIDERS);
        Self { net, random: Random(seed), orders: Vec::new(), corpus: Vec::new() }
    }

    fn who(&mut self) -> Address {
        let n = self.random.below(usize::from(PROVIDERS) + 3);
        match u8::try_from(n).unwrap() {
            0 => CLIENT,
            n if n <= PROVIDERS => provider(n),
            n if n == PROVIDERS + 1 => TREASURY,
            _ => OWNER,
        }
    }

    fn asset(&mut self) -> AssetId {
        let model = self.net.model;
        self.random.pick(&[AssetId::Native, AssetId::Shares(model), AssetId::Test(1)])
    }

    fn order(&mut self) -> OrderId {
        let newest = self.orders.len().saturating_sub(4);
        let recent: Vec<_> = self.orders[newest..].to_vec();
        if recent.is_empty() { OrderId::ZERO } else { self.random.pick(&recent) }
    }

    /// Something that a person might send, often with numbers that make no sense.
    fn call(&mut self, by: Address) -> Call {
        let (order, to, amount) = (self.order(), self.who(), self.random.amount());
        let (model, asset, n) = (self.net.model, self.asset(), self.random.next());
        let answer = self.random.pick(&["right", "right", "wrong"]);
        let shares = n % 12;
        let pool = althing_types::PoolId::of(AssetId::Native, AssetId::Shares(model));
        match self.random.below(46) {
            0..=3 => {
                let mut submit = self.net.submit("4");
                submit.agreements = u8::try_from(n % 6).unwrap();
                if n.is_multiple_of(7) {
                    (submit.fee, submit.max_total) = (amount, amount);
                }
                if n.is_multiple_of(5) {
                    submit.lane = althing_types::Lane::Chosen { provider: to };
                }
                if n.is_multiple_of(3) {
                    let source = self.random.pick(&[None, Some("http://a"), Some("nowhere"), Some("http://user@a")]);
                    let source = source.map(|source| ContentSource(source.into()));
                    submit.input = Input::Content { cid: output("elsewhere"), size: n, source };
                }
                if n.is_multiple_of(4) {
                    let until_ms = submit.deadline_ms + n % 100_000;
                    submit.budget = Some(OrderBudget { amount, until_ms });
                } else if n.is_multiple_of(2) {
                    submit.parent = Some(order);
                }
                Call::OrderSubmit(submit)
            }
            4..=7 => self.net.commit_call(order, by, answer),
            8..=11 => self.net.reveal_call(order, by, answer),
            12 => Call::OrderAccept { order },
            13 => Call::OrderComplete { order, output: output(answer), output_size: n },
            14 => Call::OrderCancel { order },
            15 | 16 => Call::Agree { order, output: output(answer) },
            17 => Call::Contest { order, ballot: None },
            18 => self.net.contest_call(order, by, answer),
            19 => Call::Vote { order, refute: n.is_multiple_of(2) },
            20 => {
                let round =
                    query::case(&self.net.state, &order).and_then(|case| case.jury).map_or(0, |jury| jury.round);
                let ballot = ballot_hash(&self.net.block.chain, &order, round, &by, &says(answer), &salt(by, round));
                Call::VoteCommit { order, ballot }
            }
            21 => {
                let round =
                    query::case(&self.net.state, &order).and_then(|case| case.jury).map_or(0, |jury| jury.round);
                let answer = if n.is_multiple_of(9) { BallotAnswer::InputUnavailable } else { says(answer) };
                open_call(order, by, round, answer)
            }
            22 => Call::Delegate { provider: to, amount },
            23 => Call::Undelegate { provider: to, amount: n.is_multiple_of(2).then_some(amount) },
            24 => Call::DelegationMove { from: to, to: self.who(), amount: None },
            25 => Call::DelegationClaim { provider: to },
            26 => Call::CommissionSet { commission: Ppm(u32::try_from(n % 1_200_000).unwrap()) },
            27 => Call::Bond { amount },
            28 => Call::Unbond { amount },
            29 => Call::Transfer { to, amount },
            30 => {
                let reward = ModelReward { rate: u32::try_from(n % 3_000_000).unwrap(), unit_bytes: n % 10 };
                Call::ModelRewardSet { model, reward: n.is_multiple_of(2).then_some(reward) }
            }
            31 => {
                let info = self.random.pick(PARAMS);
                let value = info.min + (info.max - info.min) / (1 + u128::from(n % 1_000));
                Call::ParamsSet { changes: vec![ParamChange { name: info.name.into(), value }] }
            }
            32 => {
                let inner = self.call(TREASURY);
                Call::ProposalCreate { title: "t".into(), description: String::new(), calls: vec![inner] }
            }
            33 => Call::ProposalVote { proposal: n % 4, choice: VoteChoice::For },
            34 => Call::ProposalQueue { proposal: n % 4 },
            35 => Call::ProposalExecute { proposal: n % 4 },
            36 => Call::VotesDelegate { to },
            37 => Call::DaoCreate { model, shares: 1 + n % 1_000 },
            38 => Call::SaleOpen { model, shares, price: amount },
            39 => Call::SharesBuy { model, seller: to, shares, max_total: amount },
            40 => self.random.pick(&[Call::SharesClaim { model }, Call::DripClaim { pool }, Call::SaleClose { model }]),
            41 => {
                let b = self.asset();
                Call::PoolAdd { a: asset, b, amount_a: amount, amount_b: Amount(n.into()), lp_min: Amount(0) }
            }
            42 => {
                let asset_out = self.asset();
                Call::Swap { asset_in: asset, amount_in: amount, asset_out, out_min: Amount(n.into()) }
            }
            43 => Call::BudgetClose { order },
            44 => Call::InputConfirm { order },
            _ => self.random.pick(&[
                Call::PoolDripSet { pool, weight: u32::try_from(n % 5).unwrap() },
                Call::LpStake { pool, lp: amount },
                Call::LpUnstake { pool, lp: amount },
                Call::PoolRemove { pool, lp: amount, a_min: Amount(0), b_min: Amount(0) },
                Call::DaoPropose { model, fee: amount, payee: n.is_multiple_of(2).then_some(to) },
                Call::DaoVote { model, approve: n.is_multiple_of(3) },
                Call::AssetTransfer { asset, to, amount },
            ]),
        }
    }

    /// Bytes of a transaction, some of them changed.
    fn mutate(&mut self) -> Vec<u8> {
        let corpus = self.corpus.clone();
        let mut bytes = if corpus.is_empty() { vec![0; 40] } else { self.random.pick(&corpus) };
        for _ in 0..1 + self.random.below(4) {
            let at = self.random.below(bytes.len());
            match self.random.below(5) {
                0 => bytes[at] = self.random.next().to_le_bytes()[0],
                1 => bytes[at] ^= 1 << self.random.below(8),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, 0xff),
                _ => {
                    let other = if corpus.is_empty() { vec![1] } else { self.random.pick(&corpus) };
                    let from = self.random.below(other.len());
                    bytes.splice(at.., other[from..].iter().copied());
                }
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        bytes.truncate(4 * INLINE_INPUT_BYTES_MAX);
        bytes
    }

    /// One block of made-up and mutated transactions.
    fn block(&mut self) {
        let mut txs = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            let by = self.who();
            let call = self.call(by);
            let nonce = query::account(&self.net.state, &by).nonce
                + txs.iter().filter(|tx: &&SignedTx| tx.sender() == by).count() as u64;
            let auth = Auth::Wallet { account: by, signature: [0; 65] };
            txs.push(SignedTx { call, nonce, expires_at_ms: u64::MAX, auth });
        }
        for _ in 0..4 {
            let bytes = self.mutate();
            if let Ok(tx) = SignedTx::decode(&bytes) {
                assert_eq!(encode(&tx), bytes, "what decodes encodes to the same bytes");
                txs.push(tx);
            }
        }
        let wait_ms = self.random.pick(&[100, 100, 100, 1_000, 2_000]);
        self.net.block.height += 1;
        self.net.block.time_ms += wait_ms;
        self.net.block.view += 1;
        self.net.block.beacon_view = self.net.block.view - 1;
        self.net.block.beacon = Hash::of(&[&self.random.next().to_le_bytes()]);
        let output = execute_block(&self.net.state, &self.net.block, &txs);
        assert_eq!(output.receipts.len(), txs.len());
        apply(&mut self.net.state, output.writes);
        self.orders.extend(output.receipts.iter().filter_map(|receipt| receipt.order));
        for (tx, receipt) in txs.iter().zip(&output.receipts) {
            let _ = (tx.call.summary(), serde_json::to_string(&receipt).unwrap());
            if receipt.error.is_none() && self.corpus.len() < 500 {
                self.corpus.push(encode(tx));
            }
        }
        if let Err(broken) = invariants::check(&self.net.state) {
            panic!("{broken} after {:?}", txs.iter().map(|tx| &tx.call).collect::<Vec<_>>());
        }
    }
}

/// E-3, T-17, L-1: whatever is sent, every invariant holds after every block.
#[test]
fn nothing_that_can_be_sent_breaks_the_ledger() {
    let seconds = std::env::var("ALTHING_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let only: Option<u64> = std::env::var("ALTHING_SEED").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut seed, mut blocks, mut done) = (only.unwrap_or(1), 0u64, 0usize);
    while Instant::now() < until {
        let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(seed);
            for _ in 0..300 {
                world.block();
            }
            world.corpus.len()
        }));
        match played {
            Ok(corpus) => done += corpus,
            Err(failure) => {
                println!("ALTHING_SEED={seed}");
                std::panic::resume_unwind(failure);
            }
        }
        blocks += 300;
        if only.is_some() {
            break;
        }
        seed += 1;
    }
    println!("{blocks} blocks, {done} different transactions executed");
    assert!(done > 50, "most attempts fail, but not all");
}
