//! `althing bench calls`: what executing a call of each kind costs the ledger, signatures apart.

use crate::output;
use althing_ledger::{BlockContext, apply, execute_block, genesis_state};
use althing_types::{
    Address, Amount, AssetId, Auth, Call, Event, Genesis, Hash, Input, Lane, ModelId, OrderId, PoolId, SignedTx,
    Verification, VoteChoice,
    call::OrderSubmit,
    commitment::commitment_hash,
    genesis::{GenesisAccount, GenesisAsset, GenesisModel},
    profile,
};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const ACCOUNTS: u8 = 100;
const PROVIDERS: u8 = 50;

/// One row.
#[derive(Debug, Serialize)]
struct Row {
    call: &'static str,
    count: usize,
    ns_per_call: u64,
    /// Compared with a transfer in the same run.
    transfers: f64,
}

fn account(n: usize) -> Address {
    Address([1 + u8::try_from(n % usize::from(ACCOUNTS)).unwrap_or(0); 20])
}

fn provider(n: usize) -> Address {
    account(n % usize::from(PROVIDERS))
}

fn answer(order: &OrderId) -> althing_content::Cid {
    althing_content::file_cid(order.as_bytes())
}

/// A ledger in memory, and what was measured on it.
struct Bench {
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    block: BlockContext,
    nonces: BTreeMap<Address, u64>,
    model: ModelId,
    rows: Vec<(&'static str, usize, Duration)>,
}

impl Bench {
    fn new() -> Result<Self> {
        let mut params = profile::parse(profile::DEFAULT, true)?.params;
        (params.block_units_max, params.due_items_max) = (1_000_000_000, 100_000);
        (params.proposal_delay_ms, params.challenge_window_ms) = (0, 20_000);
        let accounts = (0..usize::from(ACCOUNTS)).map(|n| GenesisAccount {
            address: account(n),
            free: Amount::tokens(1_000_000_000),
            bond: if n < usize::from(PROVIDERS) { Amount::tokens(1_000_000_000) } else { Amount::ZERO },
            session_keys: Vec::new(),
            assets: vec![GenesisAsset { asset: AssetId::Test(1), amount: Amount::tokens(1_000_000) }],
        });
        let model = GenesisModel {
            name: "bench".into(),
            owner: account(0),
            package: althing_content::file_cid(b"bench"),
            fee: Amount::TOKEN,
            payee: account(0),
            verification: Verification::Exact,
            reward: None,
        };
        let genesis = Genesis {
            network: "bench".into(),
            time_ms: 1_000,
            coordinators: String::new(),
            accounts: accounts.collect(),
            models: vec![model.clone()],
            voters: Vec::new(),
            coordinator_accounts: Vec::new(),
            params,
        };
        let (chain, state) = (genesis.chain_id(), genesis_state(&genesis)?);
        let block = BlockContext { chain, height: 0, time_ms: 1_000, view: 0, beacon: Hash::ZERO, beacon_view: 0 };
        Ok(Self { state, block, nonces: BTreeMap::new(), model: model.id(), rows: Vec::new() })
    }

    /// One block; all its calls must succeed. Gives the time of its execution.
    fn block(&mut self, calls: Vec<(Address, Call)>) -> Result<(Vec<Event>, Duration)> {
        self.block.height += 1;
        self.block.time_ms += 100;
        self.block.view += 1;
        self.block.beacon_view = self.block.view - 1;
        self.block.beacon = Hash::of(&[&self.block.view.to_be_bytes()]);
        let sign = |(account, call): (Address, Call)| {
            let nonce = self.nonces.entry(account).or_default();
            *nonce += 1;
            let auth = Auth::Wallet { account, signature: [0; 65] };
            SignedTx { call, nonce: *nonce - 1, expires_at_ms: u64::MAX, auth }
        };
        let txs: Vec<_> = calls.into_iter().map(sign).collect();
        let begun = Instant::now();
        let output = execute_block(&self.state, &self.block, &txs);
        let spent = begun.elapsed();
        for receipt in &output.receipts {
            ensure!(receipt.error.is_none(), "{} failed: {:?}", receipt.call, receipt.error);
        }
        apply(&mut self.state, output.writes);
        Ok((output.events, spent))
    }

    /// Measures one block of calls of a kind.
    fn measure(&mut self, name: &'static str, calls: Vec<(Address, Call)>) -> Result<Vec<Event>> {
        let count = calls.len();
        let (events, spent) = self.block(calls)?;
        self.rows.push((name, count, spent));
        Ok(events)
    }

    fn orders(&mut self, count: usize) -> Result<()> {
        let submit = |n: usize| {
            Call::OrderSubmit(OrderSubmit {
                model: self.model,
                input: Input::Inline { bytes: n.to_be_bytes().to_vec() },
                fee: Amount::tokens(2),
                max_total: Amount::tokens(2),
                lane: Lane::Open,
                deadline_ms: self.block.time_ms + 60_000,
                seed: None,
                agreements: 1,
                parent: None,
                budget: None,
            })
        };
        let calls = (0..count).map(|n| (account(usize::from(PROVIDERS) + n % 50), submit(n))).collect();
        let events = self.measure("order_submit", calls)?;
        let orders: Vec<OrderId> = events
            .iter()
            .filter_map(|event| match event {
                Event::OrderSubmitted { order, .. } => Some(*order),
                _ => None,
            })
            .collect();
        for _ in 0..3 {
            self.block(Vec::new())?;
        }
        let chain = self.block.chain;
        let commit = |n: usize, order: OrderId| {
            let commitment = commitment_hash(&chain, &order, &provider(n), &answer(&order), 32, &Hash(order.0));
            (provider(n), Call::OrderCommit { order, commitment })
        };
        self.measure("order_commit", orders.iter().enumerate().map(|(n, id)| commit(n, *id)).collect())?;
        let reveal = |n: usize, order: OrderId| {
            let (output, salt) = (answer(&order), Hash(order.0));
            (provider(n), Call::OrderReveal { order, output, output_size: 32, salt })
        };
        self.measure("order_reveal", orders.iter().enumerate().map(|(n, id)| reveal(n, *id)).collect())?;
        let agree = |n: usize, order: OrderId| (provider(n + 1), Call::Agree { order, output: answer(&order) });
        self.measure("agree", orders.iter().enumerate().map(|(n, id)| agree(n, *id)).collect())?;
        let ballot = Some(Hash::ZERO);
        let contested = count.min(100);
        let contest = |n: usize, order: OrderId| (provider(n + 2), Call::Contest { order, ballot });
        self.measure("contest", orders[..contested].iter().enumerate().map(|(n, id)| contest(n, *id)).collect())?;
        // The windows of the others end: what claims cost is measured without any call.
        let mut spent = Duration::ZERO;
        let mut claimed = 0;
        for _ in 0..220 {
            let (events, time) = self.block(Vec::new())?;
            let claims = events.iter().filter(|event| matches!(event, Event::OrderClaimed { .. })).count();
            claimed += claims;
            spent += if claims > 0 { time } else { Duration::ZERO };
        }
        self.rows.push(("claim (by itself)", claimed.max(1), spent));
        Ok(())
    }

    fn economy(&mut self, count: usize) -> Result<()> {
        let each = |call: &dyn Fn(usize) -> (Address, Call)| (0..count).map(call).collect::<Vec<_>>();
        let amount = Amount::TOKEN;
        self.measure("bond", each(&|n| (provider(n), Call::Bond { amount })))?;
        self.measure("delegate", each(&|n| (account(n), Call::Delegate { provider: provider(n + 1), amount })))?;
        let undelegate =
            |n: usize| (account(n), Call::Undelegate { provider: provider(n + 1), amount: Some(Amount(1_000)) });
        self.measure("undelegate", (0..usize::from(ACCOUNTS)).map(undelegate).collect())?;
        let (a, b) = (AssetId::Native, AssetId::Test(1));
        let add = Call::PoolAdd {
            a,
            b,
            amount_a: Amount::tokens(1_000),
            amount_b: Amount::tokens(1_000),
            lp_min: Amount::ZERO,
        };
        self.block(vec![(account(0), add)])?;
        let swap = Call::Swap { asset_in: a, amount_in: Amount(1_000_000), asset_out: b, out_min: Amount::ZERO };
        self.measure("swap", each(&|n| (account(n), swap.clone())))?;
        self.measure(
            "asset_transfer",
            each(&|n| (account(n), Call::AssetTransfer { asset: b, to: account(n + 1), amount: Amount(1) })),
        )?;
        let lp = Amount(1_000_000);
        let pool = PoolId::of(a, b);
        self.measure("lp_stake", each(&|_| (account(0), Call::LpStake { pool, lp })))?;
        let model = self.model;
        self.measure("dao_create", vec![(account(0), Call::DaoCreate { model, shares: 1_000_000 })])?;
        let send = Call::AssetTransfer { asset: AssetId::Shares(model), to: account(1), amount: Amount(1) };
        self.measure("shares transfer", each(&|_| (account(0), send.clone())))?;
        self.measure("votes_delegate", each(&|n| (account(n), Call::VotesDelegate { to: account(n + 1) })))?;
        let calls = vec![Call::Transfer { to: account(0), amount: Amount(1) }];
        let create = Call::ProposalCreate { title: "t".into(), description: String::new(), calls };
        self.measure("proposal_create", vec![(account(0), create)])?;
        self.block(Vec::new())?;
        let vote = Call::ProposalVote { proposal: 1, choice: VoteChoice::For };
        self.measure("proposal_vote", (0..usize::from(ACCOUNTS)).map(|n| (account(n), vote.clone())).collect())?;
        self.measure(
            "transfer, while voted on",
            each(&|n| (account(n), Call::Transfer { to: account(n + 1), amount: Amount(1) })),
        )?;
        Ok(())
    }
}

/// Measures and prints.
///
/// # Errors
/// If a call does not succeed: figures of failures are worth nothing.
pub fn run(count: usize, json: bool) -> Result<()> {
    let count = count.clamp(100, 5_000);
    let mut bench = Bench::new()?;
    let transfer = |n: usize| (account(n), Call::Transfer { to: account(n + 1), amount: Amount(1) });
    // Once to warm up, once to count.
    bench.block((0..count).map(transfer).collect())?;
    bench.measure("transfer", (0..count).map(transfer).collect())?;
    let serve = Call::ModelSupport { models: vec![bench.model], endpoint: String::new() };
    bench.measure("model_support", (0..usize::from(PROVIDERS)).map(|n| (provider(n), serve.clone())).collect())?;
    bench.orders(count)?;
    bench.economy(count)?;
    let ns = |count: usize, spent: Duration| {
        u64::try_from(spent.as_nanos() / u128::try_from(count.max(1)).unwrap_or(1)).unwrap_or(u64::MAX)
    };
    let base = bench.rows.first().map_or(1, |(_, count, spent)| ns(*count, *spent)).max(1);
    #[allow(clippy::cast_precision_loss)] // figures for people
    let rows: Vec<Row> = bench
        .rows
        .iter()
        .map(|(call, count, spent)| {
            let ns_per_call = ns(*count, *spent);
            Row { call, count: *count, ns_per_call, transfers: ns_per_call as f64 / base as f64 }
        })
        .collect();
    if json {
        return output::json(&rows);
    }
    let cells = |row: &Row| {
        vec![row.call.into(), row.count.to_string(), row.ns_per_call.to_string(), format!("{:.1}", row.transfers)]
    };
    output::table(&["CALL", "COUNT", "NS EACH", "TRANSFERS"], &rows.iter().map(cells).collect::<Vec<_>>());
    eprintln!("execution alone, in blocks of one kind, on a state in memory; signatures are checked before");
    Ok(())
}
