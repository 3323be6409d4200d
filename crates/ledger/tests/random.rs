//! Random lives of a small network. After every block all invariants hold; at the end a naive model,
//! which knows nothing but the events, has every balance right. (E-3)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::{COORDINATORS, TREASURY, query};
use althing_types::{
    Address, Amount, AssetId, Call, Event, Lane, ModelReward, OrderId, OrderState, Params, PoolId, Ppm,
    event::PaymentKind, object::Verification,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use support::*;

const PROVIDERS: u8 = 5;

/// Something that somebody tries; most attempts are refused, and must leave no trace.
#[derive(Clone, Debug)]
enum Attempt {
    Submit { agreements: u8, chosen: Option<u8>, seed: bool },
    Commit { order: usize, who: u8, lie: bool },
    Reveal { order: usize, who: u8, lie: bool },
    Accept { order: usize, who: u8 },
    Complete { order: usize, who: u8, lie: bool },
    Agree { order: usize, who: u8, lie: bool },
    Contest { order: usize, who: u8 },
    Vote { order: usize, who: u8, refute: bool },
    Cancel { order: usize },
    Bond { who: u8, tenths: u64 },
    Unbond { who: u8, tenths: u64 },
    Transfer { from: u8, to: u8, tenths: u64 },
    Support { who: u8, none: bool },
    Stake { who: u8, with: u8, stake: Stake, tenths: u64 },
    Trade { who: u8, with: u8, trade: Trade, count: u64 },
    Wait { ms: u64 },
}

/// What is tried with delegations. (T-10)
#[derive(Clone, Copy, Debug)]
enum Stake {
    Delegate,
    Undelegate,
    Move,
    Claim,
    Commission,
}

fn stake() -> impl Strategy<Value = Stake> {
    use Stake::*;
    proptest::sample::select(vec![Delegate, Delegate, Undelegate, Move, Claim, Commission])
}

/// What is tried with shares of the model's DAO and with their pool. (T-14, G-4, E-2)
#[derive(Clone, Copy, Debug)]
enum Trade {
    Send,
    Offer,
    Buy,
    ClaimFees,
    Propose,
    Vote,
    Add,
    Remove,
    SwapIn,
    SwapOut,
    Stake,
    Unstake,
    ClaimDrip,
}

fn trade() -> impl Strategy<Value = Trade> {
    use Trade::*;
    proptest::sample::select(vec![
        Send, Offer, Buy, ClaimFees, Propose, Vote, Add, Remove, SwapIn, SwapOut, Stake, Unstake, ClaimDrip,
    ])
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let (order, who) = (0usize..4, 1..=PROVIDERS);
    prop_oneof![
        4 => (0u8..4, proptest::option::weighted(0.3, 1..=PROVIDERS), any::<bool>())
            .prop_map(|(agreements, chosen, seed)| Attempt::Submit { agreements, chosen, seed }),
        8 => (order.clone(), who.clone(), any::<bool>()).prop_map(|(order, who, lie)| Attempt::Commit { order, who, lie }),
        8 => (order.clone(), who.clone(), any::<bool>()).prop_map(|(order, who, lie)| Attempt::Reveal { order, who, lie }),
        3 => (order.clone(), who.clone()).prop_map(|(order, who)| Attempt::Accept { order, who }),
        3 => (order.clone(), who.clone(), any::<bool>()).prop_map(|(order, who, lie)| Attempt::Complete { order, who, lie }),
        5 => (order.clone(), who.clone(), any::<bool>()).prop_map(|(order, who, lie)| Attempt::Agree { order, who, lie }),
        4 => (order.clone(), who.clone()).prop_map(|(order, who)| Attempt::Contest { order, who }),
        5 => (order.clone(), who.clone(), any::<bool>()).prop_map(|(order, who, refute)| Attempt::Vote { order, who, refute }),
        1 => order.prop_map(|order| Attempt::Cancel { order }),
        1 => (who.clone(), 0u64..50).prop_map(|(who, tenths)| Attempt::Bond { who, tenths }),
        1 => (who.clone(), 0u64..9_000).prop_map(|(who, tenths)| Attempt::Unbond { who, tenths }),
        1 => (who.clone(), who.clone(), 0u64..500).prop_map(|(from, to, tenths)| Attempt::Transfer { from, to, tenths }),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, none)| Attempt::Support { who, none }),
        6 => (who.clone(), who.clone(), stake(), 0u64..400)
            .prop_map(|(who, with, stake, tenths)| Attempt::Stake { who, with, stake, tenths }),
        12 => (who.clone(), who, trade(), 1u64..40)
            .prop_map(|(who, with, trade, count)| Attempt::Trade { who, with, trade, count }),
        6 => prop_oneof![Just(100u64), Just(1_500), Just(4_000), Just(9_000), Just(30_000)]
            .prop_map(|ms| Attempt::Wait { ms }),
    ]
}

fn tenths(count: u64) -> Amount {
    Amount(Amount::TOKEN.0 / 10 * u128::from(count))
}

/// Everybody's money as the events tell it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Naive {
    free: BTreeMap<Address, i128>,
    bond: BTreeMap<Address, i128>,
    /// Pools of which one side is native.
    native_pools: BTreeSet<PoolId>,
    minted: i128,
}

impl Naive {
    fn apply(&mut self, event: &Event) {
        let units = |amount: &Amount| i128::try_from(amount.0).unwrap();
        match event {
            Event::Transferred { from, to, amount } => {
                *self.free.entry(*from).or_default() -= units(amount);
                *self.free.entry(*to).or_default() += units(amount);
            }
            Event::Bonded { provider, amount } => {
                *self.free.entry(*provider).or_default() -= units(amount);
                *self.bond.entry(*provider).or_default() += units(amount);
            }
            Event::UnbondingStarted { provider, amount, .. } => {
                *self.bond.entry(*provider).or_default() -= units(amount);
            }
            Event::Unbonded { provider, amount } => *self.free.entry(*provider).or_default() += units(amount),
            Event::Slashed { provider, amount, delegated, .. } => {
                *self.bond.entry(*provider).or_default() -= units(amount) - units(delegated);
            }
            Event::OrderSubmitted { client, fee, .. } => *self.free.entry(*client).or_default() -= units(fee),
            Event::Paid { to, amount, .. }
            | Event::ShareEarningsPaid { holder: to, amount, .. }
            | Event::DripPaid { staker: to, amount, .. } => *self.free.entry(*to).or_default() += units(amount),
            Event::SharesSold { seller, buyer, total, .. } => {
                *self.free.entry(*buyer).or_default() -= units(total);
                *self.free.entry(*seller).or_default() += units(total);
            }
            Event::PoolCreated { pool, a: AssetId::Native, .. } => drop(self.native_pools.insert(*pool)),
            Event::LiquidityAdded { pool, account, amount_a, .. } if self.native_pools.contains(pool) => {
                *self.free.entry(*account).or_default() -= units(amount_a);
            }
            Event::LiquidityRemoved { pool, account, amount_a, .. } if self.native_pools.contains(pool) => {
                *self.free.entry(*account).or_default() += units(amount_a);
            }
            Event::Swapped { trader, asset_in: AssetId::Native, amount_in, .. } => {
                *self.free.entry(*trader).or_default() -= units(amount_in);
            }
            Event::Swapped { trader, asset_out: AssetId::Native, amount_out, .. } => {
                *self.free.entry(*trader).or_default() += units(amount_out);
            }
            Event::PoolEarned { amount, to_treasury: true, .. } => {
                *self.free.entry(TREASURY).or_default() += units(amount);
            }
            Event::Minted { amount, .. } => self.minted += units(amount),
            Event::Delegated { delegator: who, amount, .. } | Event::DepositTaken { account: who, amount } => {
                *self.free.entry(*who).or_default() -= units(amount);
            }
            Event::Undelegated { delegator: who, amount, .. } | Event::DepositReturned { account: who, amount } => {
                *self.free.entry(*who).or_default() += units(amount);
            }
            Event::DelegationEarningsPaid { delegator, fees, rewards, .. } => {
                *self.free.entry(*delegator).or_default() += units(fees) + units(rewards);
            }
            Event::BaseFeePaid { account, amount } => {
                *self.free.entry(*account).or_default() -= units(amount);
                *self.free.entry(COORDINATORS).or_default() += units(amount);
            }
            _ => {}
        }
    }
}

fn name(lie: bool, who: u8) -> String {
    if lie { format!("lie of {who}") } else { "truth".into() }
}

/// What a juror says that it got: one of them is always wrong.
fn verdict(who: u8) -> &'static str {
    if who == PROVIDERS { "noise" } else { "truth" }
}

fn stake_call(stake: Stake, who: Address, with: Address, n: u64) -> Call {
    let some = (!n.is_multiple_of(3)).then_some(tenths(n));
    match stake {
        Stake::Delegate => Call::Delegate { provider: with, amount: tenths(n) },
        Stake::Undelegate => Call::Undelegate { provider: with, amount: some },
        Stake::Move => {
            Call::DelegationMove { from: with, to: if n.is_multiple_of(5) { who } else { provider(1) }, amount: some }
        }
        Stake::Claim => Call::DelegationClaim { provider: with },
        Stake::Commission => Call::CommissionSet { commission: Ppm(u32::try_from(n * 2_500).unwrap()) },
    }
}

struct Life {
    net: Net,
    orders: Vec<OrderId>,
    committed: bool,
}

impl Life {
    fn order(&self, index: usize) -> Option<OrderId> {
        // The newest orders are the interesting ones.
        self.orders.len().checked_sub(1 + index).map(|at| self.orders[at])
    }

    /// Commits a vote, or opens it once it is time.
    fn committed_vote(&self, order: OrderId, who: u8) -> Option<Call> {
        let case = query::case(&self.net.state, &order)?;
        let (voter, round) = (provider(who), case.jury?.round);
        let committed = case.votes.iter().any(|vote| vote.provider == voter && vote.answer.is_none());
        let ballot = self.net.ballot(order, voter, round, says(verdict(who)));
        Some(match committed {
            true => open_call(order, voter, round, says(verdict(who))),
            false => Call::VoteCommit { order, ballot },
        })
    }

    fn attempt(&mut self, attempt: &Attempt) -> Option<(Address, Call)> {
        let net = &self.net;
        Some(match attempt {
            Attempt::Submit { agreements, chosen, seed } => {
                let mut submit = net.submit("4");
                submit.agreements = *agreements;
                submit.seed = seed.then_some(7);
                submit.lane = chosen.map_or(Lane::Open, |who| Lane::Chosen { provider: provider(who) });
                (CLIENT, Call::OrderSubmit(submit))
            }
            Attempt::Commit { order, who, lie } => {
                (provider(*who), net.commit_call(self.order(*order)?, provider(*who), &name(*lie, *who)))
            }
            Attempt::Reveal { order, who, lie } => {
                (provider(*who), net.reveal_call(self.order(*order)?, provider(*who), &name(*lie, *who)))
            }
            Attempt::Accept { order, who } => (provider(*who), Call::OrderAccept { order: self.order(*order)? }),
            Attempt::Complete { order, who, lie } => {
                let output = output(&name(*lie, *who));
                (provider(*who), Call::OrderComplete { order: self.order(*order)?, output, output_size: 7 })
            }
            Attempt::Agree { order, who, lie } => {
                let output = output(&name(*lie, *who));
                (provider(*who), Call::Agree { order: self.order(*order)?, output })
            }
            Attempt::Contest { order, who } if self.committed => {
                (provider(*who), net.contest_call(self.order(*order)?, provider(*who), verdict(*who)))
            }
            Attempt::Contest { order, who } => {
                (provider(*who), Call::Contest { order: self.order(*order)?, ballot: None })
            }
            Attempt::Vote { order, who, .. } if self.committed => {
                (provider(*who), self.committed_vote(self.order(*order)?, *who)?)
            }
            Attempt::Vote { order, who, refute } => {
                (provider(*who), Call::Vote { order: self.order(*order)?, refute: *refute })
            }
            Attempt::Stake { who, with, stake, tenths: n } => {
                (provider(*who), stake_call(*stake, provider(*who), provider(*with), *n))
            }
            Attempt::Cancel { order } => (CLIENT, Call::OrderCancel { order: self.order(*order)? }),
            Attempt::Bond { who, tenths: n } => (provider(*who), Call::Bond { amount: tenths(*n) }),
            Attempt::Unbond { who, tenths: n } => (provider(*who), Call::Unbond { amount: tenths(*n) }),
            Attempt::Transfer { from, to, tenths: n } => {
                (provider(*from), Call::Transfer { to: provider(*to), amount: tenths(*n) })
            }
            Attempt::Support { who, none } => {
                let models = if *none { vec![] } else { vec![net.model] };
                (provider(*who), Call::ModelSupport { models, endpoint: "http://127.0.0.1:1".into() })
            }
            Attempt::Trade { who, with, trade, count } => {
                (provider(*who), self.trade(provider(*who), provider(*with), *trade, *count))
            }
            Attempt::Wait { .. } => return None,
        })
    }

    fn trade(&self, who: Address, with: Address, trade: Trade, count: u64) -> Call {
        let model = self.net.model;
        let (asset, native) = (AssetId::Shares(model), AssetId::Native);
        let pool = PoolId::of(asset, native);
        let (shares, none) = (Amount(count.into()), Amount::ZERO);
        // Between nothing and all of it, as a rule.
        let part = |of: Amount| of.mul_div_floor(count.into(), 36).unwrap();
        let lp = part(query::balance(&self.net.state, &who, AssetId::Lp(pool)));
        match trade {
            Trade::Send => Call::AssetTransfer { asset, to: with, amount: shares },
            Trade::Offer => Call::SaleOpen { model, shares: count, price: tenths(count) },
            Trade::Buy => Call::SharesBuy { model, seller: with, shares: count / 4, max_total: tenths(100) },
            Trade::ClaimFees => Call::SharesClaim { model },
            Trade::Propose => Call::DaoPropose { model, fee: tenths(count / 2), payee: (count < 9).then_some(PAYEE) },
            Trade::Vote => Call::DaoVote { model, approve: count > 9 },
            Trade::Add => {
                Call::PoolAdd { a: native, b: asset, amount_a: tenths(count), amount_b: shares, lp_min: none }
            }
            Trade::Remove => Call::PoolRemove { pool, lp, a_min: none, b_min: none },
            Trade::SwapIn => Call::Swap { asset_in: native, amount_in: tenths(count), asset_out: asset, out_min: none },
            Trade::SwapOut => Call::Swap { asset_in: asset, amount_in: shares, asset_out: native, out_min: none },
            Trade::Stake => Call::LpStake { pool, lp },
            Trade::Unstake => {
                let staked = query::lp_stake(&self.net.state, &who, &pool).map_or(none, |stake| stake.lp);
                Call::LpUnstake { pool, lp: part(staked) }
            }
            Trade::ClaimDrip => Call::DripClaim { pool },
        }
    }
}

/// The model is a DAO whose shares the providers hold, beside a pool that gets the drip; half of the
/// lives mint.
fn found(net: &mut Net, mints: bool) {
    let (model, asset) = (net.model, AssetId::Shares(net.model));
    let share = |n| Call::AssetTransfer { asset, to: provider(n), amount: Amount(40) };
    // For their base fees.
    net.ok([OWNER, TREASURY].map(|to| (CLIENT, Call::Transfer { to, amount: tenths(10) })).into());
    net.ok(vec![(OWNER, Call::DaoCreate { model, shares: 200 })]);
    net.ok((1..=PROVIDERS).map(|n| (OWNER, share(n))).collect());
    let add = Call::PoolAdd {
        a: AssetId::Native,
        b: asset,
        amount_a: tenths(100),
        amount_b: Amount(10),
        lp_min: Amount::ZERO,
    };
    let reward = mints.then_some(ModelReward { rate: 1_000_000, unit_bytes: 1 });
    net.ok(vec![
        (provider(1), add),
        (TREASURY, Call::PoolDripSet { pool: PoolId::of(AssetId::Native, asset), weight: 1 }),
        (TREASURY, Call::ModelRewardSet { model, reward }),
    ]);
}

fn small_windows() -> Params {
    Params { due_items_max: 2, order_retention_ms: 600_000, ..params() }
}

/// With or without committed votes and costs.
fn some_windows(committed: bool, costs: bool) -> Params {
    let mut params = Params { votes_committed: committed, jury_seats: 2, jury_seats_redrawn: 3, ..small_windows() };
    if costs {
        (params.base_fee_byte, params.base_fee_unit, params.deposit_object) =
            (Amount(3), Amount(70), Amount(1_000_003));
    }
    params
}

fn balances(net: &Net) -> (BTreeMap<Address, i128>, BTreeMap<Address, i128>) {
    let units = |amount: Amount| i128::try_from(amount.0).unwrap();
    let who = (1..=PROVIDERS).map(provider).chain([CLIENT, OWNER, PAYEE]);
    let free = who.map(|address| (address, units(net.free(address)))).collect();
    let bond = (1..=PROVIDERS).map(|n| (provider(n), units(net.bond(provider(n))))).collect();
    (free, bond)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// E-2, E-3, G-4, T-1 … T-10, T-14, T-17, V-1: whatever happens, nothing is made or lost, and every order ends.
    #[test]
    fn whatever_happens_money_is_conserved_and_every_order_ends(
        mints: bool, committed: bool, costs: bool,
        blocks in proptest::collection::vec(proptest::collection::vec(attempt(), 1..4), 1..60)
    ) {
        let net = Net::with(PROVIDERS, "900", some_windows(committed, costs));
        let mut life = Life { net, orders: Vec::new(), committed };
        found(&mut life.net, mints);
        let (free, bond) = balances(&life.net);
        let native_pools = [PoolId::of(AssetId::Native, AssetId::Shares(life.net.model))].into();
        let mut naive = Naive { free, bond, native_pools, minted: 0 };
        let before = query::supply(&life.net.state);
        for (address, place) in [(TREASURY, before.treasury), (COORDINATORS, before.coordinators)] {
            naive.free.insert(address, i128::try_from(place.0).unwrap());
        }
        let issued = query::supply(&life.net.state).issued;
        life.net.events.clear();
        for attempts in &blocks {
            let wait_ms = attempts.iter().map(|a| if let Attempt::Wait { ms } = a { *ms } else { 0 }).sum::<u64>();
            let calls: Vec<_> = attempts.iter().filter_map(|a| life.attempt(a)).collect();
            // Checks every invariant after every block.
            let output = life.net.block_after(wait_ms.max(100), calls);
            life.orders.extend(output.receipts.iter().filter_map(|receipt| receipt.order));
        }
        // Everything that is under way ends by itself, two due items a block.
        for _ in 0..400 {
            life.net.wait(2_000);
        }
        for id in &life.orders {
            if let Some(order) = query::order(&life.net.state, id) {
                prop_assert!(order.state.is_final(), "{:?}", order.state);
                prop_assert!(order.state != OrderState::Claimed || order.claimed_by.is_some());
            }
        }
        life.net.events.iter().for_each(|event| naive.apply(event));
        let (free, bond) = balances(&life.net);
        let supply = query::supply(&life.net.state);
        for (address, free) in &free {
            prop_assert_eq!(naive.free[address], *free, "free of {}", address);
        }
        prop_assert_eq!(&naive.bond, &bond);
        for (address, place) in [(TREASURY, supply.treasury), (COORDINATORS, supply.coordinators)] {
            prop_assert_eq!(naive.free.get(&address).copied().unwrap_or(0), i128::try_from(place.0).unwrap());
        }
        prop_assert_eq!(i128::try_from(supply.issued.0 - issued.0).unwrap(), naive.minted);
        prop_assert_eq!(supply.escrowed, Amount::ZERO);
    }
}

#[test]
fn the_random_lives_use_a_model_that_can_be_verified() {
    // If the world changed so that all attempts fail, the property would hold for nothing.
    let mut net = Net::with(PROVIDERS, "900", small_windows());
    let id = net.open_order();
    net.solve(id, provider(1), "truth");
    net.wait(9_000);
    assert_eq!(net.get(&id).state, OrderState::Claimed);
    assert_eq!(query::model(&net.state, &net.model).unwrap().verification, Verification::Exact);
    let paid = |kind| net.events.iter().any(|e| matches!(e, Event::Paid { kind: k, .. } if *k == kind));
    assert!(paid(PaymentKind::ProviderFee) && paid(PaymentKind::TreasuryFee));
    found(&mut net, true);
    let life = Life { net: net.clone(), orders: Vec::new(), committed: false };
    let trades = [Trade::Send, Trade::Offer, Trade::Propose, Trade::Vote, Trade::Add, Trade::SwapIn, Trade::SwapOut];
    for (trade, count) in trades.into_iter().zip([5, 5, 5, 5, 20, 20, 5]) {
        net.ok(vec![(provider(1), life.trade(provider(1), provider(2), trade, count))]);
    }
}
