//! The market and the liquidity drip, by rule id. (G-4, E-2)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::{DRIP_POOLS_MAX, GenesisError, LP_LOCKED, TREASURY, genesis_state, query};
use althing_types::{
    Address, Amount, AssetId, Call, Event, Genesis, Holding, LedgerError as E, MarketPool, ModelReward, Params, PoolId,
    call::OrderSubmit, genesis::GenesisAsset,
};
use proptest::prelude::*;
use support::*;

const NATIVE: AssetId = AssetId::Native;
const GOLD: AssetId = AssetId::Test(1);
const TIN: AssetId = AssetId::Test(2);
/// Has 10,000 of everything; so does each provider, which trades, and CLIENT.
const MAKER: Address = Address([0xaa; 20]);

fn genesis() -> Genesis {
    let params = Params { seed_from_id: true, challenge_window_ms: 1_000, ..params() };
    let mut genesis = Net::genesis(3, "1000", params);
    let maker = althing_types::genesis::GenesisAccount { address: MAKER, ..genesis.accounts[0].clone() };
    genesis.accounts.push(maker);
    for account in &mut genesis.accounts {
        account.free = alth("10000");
        account.assets = [GOLD, TIN].map(|asset| GenesisAsset { asset, amount: alth("10000") }).to_vec();
    }
    genesis
}

fn net() -> Net {
    Net::of(&genesis(), 3)
}

fn add(a: AssetId, amount_a: Amount, b: AssetId, amount_b: Amount) -> Call {
    Call::PoolAdd { a, b, amount_a, amount_b, lp_min: Amount::ZERO }
}

fn swap(asset_in: AssetId, amount_in: Amount, asset_out: AssetId) -> Call {
    Call::Swap { asset_in, amount_in, asset_out, out_min: Amount::ZERO }
}

fn remove(pool: PoolId, lp: Amount) -> Call {
    Call::PoolRemove { pool, lp, a_min: Amount::ZERO, b_min: Amount::ZERO }
}

fn gold_pool() -> PoolId {
    PoolId::of(NATIVE, GOLD)
}

/// A network whose pool of native and GOLD holds 1000 and 4000, of MAKER.
fn net_with_pool() -> Net {
    let mut net = net();
    net.ok(vec![(MAKER, add(NATIVE, alth("1000"), GOLD, alth("4000")))]);
    net
}

fn pool(net: &Net) -> MarketPool {
    query::pool(&net.state, &gold_pool()).unwrap()
}

fn balance(net: &Net, who: Address, asset: AssetId) -> Amount {
    query::balance(&net.state, &who, asset)
}

/// G-4: test assets exist as far as a genesis endows them; other assets come from what happens.
#[test]
fn a_genesis_endows_test_assets_only() {
    let net = net();
    assert_eq!(query::asset_total(&net.state, GOLD), alth("50000"));
    assert_eq!(query::asset_total(&net.state, AssetId::Test(3)), Amount::ZERO);
    let holding = |asset| Holding { asset, free: alth("10000"), locked: Amount::ZERO };
    assert_eq!(query::holdings(&net.state, &CLIENT, 9), vec![holding(GOLD), holding(TIN)]);
    for asset in [NATIVE, AssetId::Lp(gold_pool()), AssetId::Shares(net.model)] {
        let mut genesis = genesis();
        genesis.accounts[0].assets[0].asset = asset;
        let error = genesis_state(&genesis).unwrap_err();
        assert!(matches!(error, GenesisError::Asset { asset: got, .. } if got == asset), "{error}");
    }
}

/// G-4: any asset can be sent.
#[test]
fn assets_move_between_accounts() {
    let mut net = net_with_pool();
    let send = |asset, amount: &str| Call::AssetTransfer { asset, to: OWNER, amount: alth(amount) };
    let lp = AssetId::Lp(gold_pool());
    for (call, expected) in [
        (send(GOLD, "0"), Err(E::ZeroAmount)),
        (send(GOLD, "6001"), Err(E::InsufficientAsset { asset: GOLD, needed: alth("6001"), free: alth("6000") })),
        (
            send(AssetId::Test(9), "1"),
            Err(E::InsufficientAsset { asset: AssetId::Test(9), needed: alth("1"), free: alth("0") }),
        ),
        (send(NATIVE, "9001"), Err(E::InsufficientBalance { needed: alth("9001"), free: alth("9000") })),
        (send(GOLD, "6000"), Ok(())),
        (send(NATIVE, "1"), Ok(())),
        (send(lp, "1000"), Ok(())),
    ] {
        assert_eq!(net.call(MAKER, call.clone()), expected, "{call:?}");
    }
    assert_eq!(
        (balance(&net, OWNER, GOLD), net.free(OWNER), balance(&net, OWNER, lp)),
        (alth("6000"), alth("1"), alth("1000"))
    );
    assert!(net.events.contains(&Event::AssetTransferred {
        asset: GOLD,
        from: MAKER,
        to: OWNER,
        amount: alth("6000")
    }));
    assert!(net.events.contains(&Event::Transferred { from: MAKER, to: OWNER, amount: alth("1") }));
}

/// G-4: every way in which the market refuses a call.
#[test]
fn wrong_calls_to_the_market_are_refused() {
    let mut net = net_with_pool();
    let id = gold_pool();
    let none = PoolId::of(GOLD, TIN);
    let one = Amount(1);
    let lp = AssetId::Lp(id);
    let mine = balance(&net, MAKER, lp);
    let above = Amount(mine.0 + 1);
    let wanting = |lp_min| Call::PoolAdd { a: GOLD, b: NATIVE, amount_a: alth("4"), amount_b: alth("2"), lp_min };
    for (who, call, expected) in [
        (MAKER, add(GOLD, one, GOLD, one), Err(E::SameAsset)),
        (MAKER, add(GOLD, Amount::ZERO, NATIVE, one), Err(E::ZeroAmount)),
        (MAKER, add(GOLD, Amount(1_000), TIN, Amount(1_001)), Err(E::PoolTooSmall { min: LP_LOCKED })),
        (MAKER, add(GOLD, one, NATIVE, one), Err(E::AmountTooSmall)),
        (
            MAKER,
            add(GOLD, alth("6001"), TIN, alth("1")),
            Err(E::InsufficientAsset { asset: GOLD, needed: alth("6001"), free: alth("6000") }),
        ),
        (
            OWNER,
            add(GOLD, alth("4"), NATIVE, alth("1")),
            Err(E::InsufficientBalance { needed: alth("1"), free: Amount::ZERO }),
        ),
        (MAKER, wanting(alth("2.1")), Err(E::BelowMinimum { asset: lp, out: alth("2"), min: alth("2.1") })),
        (MAKER, swap(GOLD, one, GOLD), Err(E::SameAsset)),
        (MAKER, swap(GOLD, one, TIN), Err(E::UnknownPool(none))),
        (MAKER, swap(GOLD, Amount::ZERO, NATIVE), Err(E::ZeroAmount)),
        (MAKER, swap(GOLD, Amount(4), NATIVE), Err(E::AmountTooSmall)),
        (MAKER, swap(GOLD, Amount::MAX, NATIVE), Err(E::Overflow)),
        (
            OWNER,
            swap(GOLD, alth("1"), NATIVE),
            Err(E::InsufficientAsset { asset: GOLD, needed: alth("1"), free: alth("0") }),
        ),
        (
            MAKER,
            Call::Swap { asset_in: NATIVE, amount_in: alth("10"), asset_out: GOLD, out_min: alth("40") },
            Err(E::BelowMinimum { asset: GOLD, out: alth("39.486321375882451954"), min: alth("40") }),
        ),
        (MAKER, remove(none, one), Err(E::UnknownPool(none))),
        (MAKER, remove(id, Amount::ZERO), Err(E::ZeroAmount)),
        (MAKER, remove(id, above), Err(E::InsufficientAsset { asset: lp, needed: above, free: mine })),
        (
            MAKER,
            Call::PoolRemove { pool: id, lp: alth("2"), a_min: alth("1.1"), b_min: Amount::ZERO },
            Err(E::BelowMinimum { asset: NATIVE, out: alth("1"), min: alth("1.1") }),
        ),
        (
            MAKER,
            Call::PoolRemove { pool: id, lp: alth("2"), a_min: Amount::ZERO, b_min: alth("4.1") },
            Err(E::BelowMinimum { asset: GOLD, out: alth("4"), min: alth("4.1") }),
        ),
        (MAKER, Call::LpStake { pool: none, lp: one }, Err(E::UnknownPool(none))),
        (MAKER, Call::LpStake { pool: id, lp: Amount::ZERO }, Err(E::ZeroAmount)),
        (
            MAKER,
            Call::LpStake { pool: id, lp: above },
            Err(E::InsufficientAsset { asset: lp, needed: above, free: mine }),
        ),
        (MAKER, Call::LpUnstake { pool: id, lp: Amount::ZERO }, Err(E::ZeroAmount)),
        (MAKER, Call::LpUnstake { pool: id, lp: one }, Err(E::StakeTooSmall { staked: Amount::ZERO })),
        (MAKER, Call::DripClaim { pool: id }, Err(E::NothingToClaim)),
        (MAKER, Call::DripClaim { pool: none }, Err(E::UnknownPool(none))),
        (MAKER, Call::PoolDripSet { pool: id, weight: 1 }, Err(E::NotGovernor)),
        (TREASURY, Call::PoolDripSet { pool: none, weight: 1 }, Err(E::UnknownPool(none))),
    ] {
        let before = pool(&net);
        assert_eq!(net.call(who, call.clone()), expected, "{call:?}");
        assert_eq!(pool(&net), before);
    }
}

/// G-4: exact integers, made with big integers elsewhere: out = ⌊y·997000·x / (X·10^6 + 997000·x)⌋.
#[test]
fn swaps_give_exactly_what_the_formula_says() {
    let mut net = net_with_pool();
    assert_eq!(pool(&net).lp, alth("2000"));
    assert_eq!(balance(&net, MAKER, AssetId::Lp(gold_pool())), Amount(1_999_999_999_999_999_999_000));
    for (asset_in, amount_in, asset_out, out) in
        [(NATIVE, 10_000_000_000_000_000_000, GOLD, 39_486_321_375_882_451_954u128), (NATIVE, 1, GOLD, 3)]
    {
        let quote = query::quote(&net.state, asset_in, Amount(amount_in), asset_out).unwrap();
        assert_eq!(quote.amount_out, Amount(out));
        let before = balance(&net, CLIENT, asset_out);
        net.ok(vec![(CLIENT, swap(asset_in, Amount(amount_in), asset_out))]);
        assert_eq!(balance(&net, CLIENT, asset_out).0 - before.0, out);
    }
    assert_eq!(query::supply(&net.state).pools, Amount(1_010_000_000_000_000_000_001));
    // 1 % of the pool costs about 1 %, and the fee of 0.3 %.
    let quote = query::quote(&net_with_pool().state, NATIVE, alth("10"), GOLD).unwrap();
    assert_eq!((quote.fee, quote.price_impact.0), (alth("0.03"), 12_842));
    for (asset_in, amount_in, asset_out, expected) in [
        (GOLD, 1, GOLD, E::SameAsset),
        (GOLD, 1, TIN, E::UnknownPool(PoolId::of(GOLD, TIN))),
        (GOLD, 0, NATIVE, E::ZeroAmount),
        (GOLD, 3, NATIVE, E::AmountTooSmall),
    ] {
        assert_eq!(query::quote(&net.state, asset_in, Amount(amount_in), asset_out), Err(expected));
    }
    // Whatever is given, something stays.
    net.ok(vec![(CLIENT, swap(NATIVE, alth("9000"), GOLD))]);
    assert!(!pool(&net).reserve_b.is_zero());
}

/// G-4: who adds gives both in proportion, at most what was offered, and gets its part.
#[test]
fn liquidity_is_added_and_removed_in_proportion() {
    let mut net = net_with_pool();
    let (id, lp) = (gold_pool(), AssetId::Lp(gold_pool()));
    net.ok(vec![(CLIENT, add(GOLD, alth("400"), NATIVE, alth("5000")))]);
    assert_eq!((balance(&net, CLIENT, GOLD), net.free(CLIENT)), (alth("9600"), alth("9900")));
    assert_eq!((balance(&net, CLIENT, lp), pool(&net).lp), (alth("200"), alth("2200")));
    net.ok(vec![(CLIENT, remove(id, alth("50")))]);
    assert_eq!((balance(&net, CLIENT, GOLD), net.free(CLIENT)), (alth("9700"), alth("9925")));
    // All but the locked shares can leave; the pool goes on with what is left.
    let (maker, client) = (balance(&net, MAKER, lp), balance(&net, CLIENT, lp));
    net.ok(vec![(MAKER, remove(id, maker)), (CLIENT, remove(id, client))]);
    let left = pool(&net);
    assert_eq!((left.lp, left.reserve_a, left.reserve_b), (LP_LOCKED, Amount(500), Amount(2_000)));
    net.ok(vec![(CLIENT, add(GOLD, alth("400"), NATIVE, alth("100")))]);
    assert_eq!(balance(&net, CLIENT, lp), alth("200"));
}

/// G-4: pools lie between any two assets, liquidity shares among them.
#[test]
fn liquidity_shares_are_an_asset_like_any_other() {
    let mut net = net_with_pool();
    let lp = AssetId::Lp(gold_pool());
    net.ok(vec![(MAKER, add(lp, alth("1000"), TIN, alth("1000"))), (CLIENT, swap(TIN, alth("10"), lp))]);
    assert!(!balance(&net, CLIENT, lp).is_zero());
    assert_eq!(query::pools(&net.state, None, 9).len(), 2);
    let stake = Call::LpStake { pool: gold_pool(), lp: alth("5") };
    net.ok(vec![(CLIENT, stake)]);
    let held = query::holdings(&net.state, &CLIENT, 9);
    assert_eq!(held[0], Holding { asset: lp, free: balance(&net, CLIENT, lp), locked: alth("5") });
}

#[derive(Clone, Debug)]
enum Trade {
    Add(u64, u64),
    Remove(u8),
    Buy(u64),
    Sell(u64),
}

fn trade() -> impl Strategy<Value = Trade> {
    let amount = || prop_oneof![1u64..50, 1u64..100_000, 1u64..10_000_000];
    prop_oneof![
        (amount(), amount()).prop_map(|(a, b)| Trade::Add(a, b)),
        any::<u8>().prop_map(Trade::Remove),
        amount().prop_map(Trade::Buy),
        amount().prop_map(Trade::Sell),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// G-4: whatever a lone trader does, it never ends with more of one asset and not less of the
    /// other; the pool's product for each liquidity share never falls.
    #[test]
    fn nobody_gets_anything_out_of_a_pool_by_trading_with_it_alone(
        (first_a, first_b) in (1_100u64..1_000_000, 1_100u64..1_000_000),
        trades in proptest::collection::vec(trade(), 1..30)
    ) {
        let mut net = net();
        let (id, lp) = (gold_pool(), AssetId::Lp(gold_pool()));
        net.ok(vec![(MAKER, add(NATIVE, Amount(first_a.into()), GOLD, Amount(first_b.into())))]);
        let has = |net: &Net| (net.free(CLIENT), balance(net, CLIENT, GOLD));
        let start = has(&net);
        for trade in &trades {
            let before = pool(&net);
            let call = match *trade {
                Trade::Add(a, b) => add(NATIVE, Amount(a.into()), GOLD, Amount(b.into())),
                Trade::Remove(part) => remove(id, balance(&net, CLIENT, lp).mul_div_floor(part.into(), 255).unwrap()),
                Trade::Buy(amount) => swap(NATIVE, Amount(amount.into()), GOLD),
                Trade::Sell(amount) => swap(GOLD, Amount(amount.into()), NATIVE),
            };
            let _ = net.call(CLIENT, call);
            // a·b / lp² never falls.
            let after = pool(&net);
            let square = |pool: &MarketPool| pool.lp.0 * pool.lp.0;
            let product = |pool: &MarketPool| pool.reserve_a.0 * pool.reserve_b.0;
            prop_assert!(product(&after) * square(&before) >= product(&before) * square(&after), "{:?}", trade);
        }
        let rest = balance(&net, CLIENT, lp);
        if !rest.is_zero() {
            net.ok(vec![(CLIENT, remove(id, rest))]);
        }
        let end = has(&net);
        prop_assert!(end == start || end.0 < start.0 || end.1 < start.1, "{:?} became {:?}", start, end);
    }
}

/// An order whose whole fee is the first model's, from submission to payout.
fn run(net: &mut Net) {
    let fee = query::model(&net.state, &net.model).unwrap().fee;
    let submit = OrderSubmit { fee, max_total: fee, agreements: 0, ..net.submit("1") };
    let id = net.order(submit);
    net.solve(id, provider(1), "right");
    net.wait(1_100);
    assert!(net.get(&id).state.is_final());
}

/// G-4: the first depositor cannot make liquidity shares so dear that the next one loses by rounding,
/// not even with what shares of a DAO earn for the pool.
#[test]
fn the_first_depositor_cannot_take_from_the_second() {
    let mut net = net();
    let (model, asset) = (net.model, AssetId::Shares(net.model));
    let share = |to, count| Call::AssetTransfer { asset, to, amount: Amount(count) };
    net.ok(vec![(OWNER, Call::ModelTermsSet { model, fee: alth("100"), payee: OWNER })]);
    net.ok(vec![(OWNER, Call::DaoCreate { model, shares: 100 })]);
    net.ok(vec![(OWNER, share(MAKER, 50)), (OWNER, share(provider(2), 50))]);
    // One liquidity share of her own, in a pool that then earns 1 token for it.
    let id = PoolId::of(NATIVE, asset);
    net.ok(vec![(MAKER, add(NATIVE, Amount(1_002_001), asset, Amount(1)))]);
    assert_eq!(balance(&net, MAKER, AssetId::Lp(id)), Amount(1));
    run(&mut net);
    let victim = provider(2);
    net.ok(vec![(victim, Call::SharesClaim { model })]);
    let before = net.free(victim);
    net.ok(vec![(victim, add(NATIVE, alth("12"), asset, Amount(10)))]);
    let lp = balance(&net, victim, AssetId::Lp(id));
    net.ok(vec![(victim, remove(id, lp))]);
    let lost = before.0 - net.free(victim).0;
    assert!(lost < alth("0.01").0, "lost {lost} of 10 tokens");
    assert!(balance(&net, victim, asset).0 >= 49, "shares are indivisible: at most one is left by rounding");
    let before = net.free(MAKER);
    net.ok(vec![(MAKER, remove(id, Amount(1)))]);
    assert!(net.free(MAKER).0 - before.0 < alth("0.02").0, "the locked shares keep what she put in");
}

/// T-14, G-4: shares in a pool earn for its native reserve, before anybody trades with it.
#[test]
fn shares_in_a_pool_earn_for_the_pool_or_the_treasury() {
    let mut net = net();
    let (model, asset) = (net.model, AssetId::Shares(net.model));
    net.ok(vec![(OWNER, Call::DaoCreate { model, shares: 10 })]);
    net.ok(vec![(OWNER, Call::AssetTransfer { asset, to: MAKER, amount: Amount(10) })]);
    net.ok(vec![(MAKER, add(asset, Amount(4), NATIVE, alth("40"))), (MAKER, add(asset, Amount(3), GOLD, alth("30")))]);
    run(&mut net);
    let pools = [PoolId::of(asset, NATIVE), PoolId::of(asset, GOLD)];
    assert_eq!(pools.map(|id| query::share_earnings(&net.state, &model, &id.account())), [alth("0.4"), alth("0.3")]);
    assert_eq!(query::share_earnings(&net.state, &model, &MAKER), alth("0.3"));
    let treasury = net.free(TREASURY);
    let quote = query::quote(&net.state, asset, Amount(1), NATIVE).unwrap();
    assert_eq!(quote.amount_out, Amount(alth("40.4").0 * 997 / 4_997), "the earnings are in the price");
    net.ok(vec![(MAKER, swap(asset, Amount(1), NATIVE)), (MAKER, swap(asset, Amount(1), GOLD))]);
    let swapped = Event::Swapped {
        pool: pools[0],
        trader: MAKER,
        asset_in: asset,
        amount_in: Amount(1),
        asset_out: NATIVE,
        amount_out: quote.amount_out,
    };
    assert!(net.events.contains(&swapped));
    let earned = Event::PoolEarned { pool: pools[0], model, amount: alth("0.4"), to_treasury: false };
    assert!(net.events.contains(&earned));
    assert_eq!(net.free(TREASURY).0 - treasury.0, alth("0.3").0);
    // Pools have no key that could vote, and their shares count in no vote.
    net.ok(vec![(MAKER, Call::DaoPropose { model, fee: alth("2"), payee: None })]);
    net.ok(vec![(MAKER, Call::DaoVote { model, approve: true })]);
    let proposal = query::dao(&net.state, &model).unwrap().proposal;
    assert_eq!(proposal.map(|p| (p.yes, p.no)), Some((1, 0)), "1 of 10 shares is below the quorum of 2");
}

/// Mints: the liquidity part joins the drip.
fn fund(net: &mut Net) {
    let reward = Some(ModelReward { rate: 1_000_000, unit_bytes: 1 });
    net.ok(vec![(TREASURY, Call::ModelRewardSet { model: net.model, reward })]);
    run(net);
    net.ok(vec![(TREASURY, Call::ModelRewardSet { model: net.model, reward: None })]);
}

fn drip_ms() -> u64 {
    params().liquidity_drip_ms
}

/// E-2: what is released for a time goes to those who staked all that time, by stake.
#[test]
fn the_drip_pays_stake_times_time() {
    let mut net = net_with_pool();
    let (id, lp) = (gold_pool(), AssetId::Lp(gold_pool()));
    net.ok(vec![
        (MAKER, Call::AssetTransfer { asset: lp, to: CLIENT, amount: alth("900") }),
        (TREASURY, Call::PoolDripSet { pool: id, weight: 5 }),
    ]);
    fund(&mut net);
    let funded = query::supply(&net.state).drip;
    assert!(!funded.is_zero());
    // While nobody stakes, nothing is released.
    net.wait(10_000);
    assert_eq!(query::drip(&net.state).unreleased, funded);
    net.ok(vec![(MAKER, Call::LpStake { pool: id, lp: alth("100") })]);
    assert_eq!(net.call(MAKER, Call::DripClaim { pool: id }).err(), None, "a block's time is paid for");
    let first = net.free(MAKER);
    net.wait(drip_ms() / 2);
    // Nine times the stake comes late, and has earned nothing of the time before.
    net.ok(vec![(CLIENT, Call::LpStake { pool: id, lp: alth("900") })]);
    assert_eq!(query::drip_earnings(&net.state, &CLIENT, &id), Amount::ZERO);
    let early = query::drip_earnings(&net.state, &MAKER, &id);
    let released = query::drip(&net.state).owed;
    assert!(released.0 - early.0 < 100, "all that was released but dust is hers");
    // Half of the drip's time gives 1 − e^(−1/2) of it, step by step; blocks 2 s apart, of 60 s, a
    // little more.
    let part = early.0 * 1_000 / funded.0;
    assert!((393..=400).contains(&part), "{part}");
    let same_block = net.block(vec![
        (CLIENT, Call::LpUnstake { pool: id, lp: alth("900") }),
        (CLIENT, Call::LpStake { pool: id, lp: alth("900") }),
    ]);
    assert_eq!(same_block, vec![Ok(()), Ok(())]);
    net.wait(5_000);
    let late = query::drip_earnings(&net.state, &CLIENT, &id);
    let since = query::drip_earnings(&net.state, &MAKER, &id).0 - early.0;
    assert!(late.0.abs_diff(9 * since) < 100, "from then on by stake: {} and {since}", late.0);
    net.ok(vec![(MAKER, Call::DripClaim { pool: id }), (CLIENT, Call::DripClaim { pool: id })]);
    assert!(net.free(MAKER) > first);
    assert_eq!(
        net.call(CLIENT, Call::LpUnstake { pool: id, lp: alth("901") }),
        Err(E::StakeTooSmall { staked: alth("900") })
    );
    // E-4: earned from rewards.
    assert!(query::account(&net.state, &CLIENT).earned.rewards >= late);
    net.ok(vec![(CLIENT, Call::LpUnstake { pool: id, lp: alth("900") }), (CLIENT, Call::DripClaim { pool: id })]);
    assert_eq!(balance(&net, CLIENT, lp), alth("900"));
    assert_eq!(query::lp_stake(&net.state, &CLIENT, &id), None);
}

/// E-2: governance's weights divide the drip between the pools in which somebody stakes.
#[test]
fn pools_share_the_drip_by_their_weights() {
    let mut net = net_with_pool();
    let tin = PoolId::of(NATIVE, TIN);
    let idle = PoolId::of(GOLD, TIN);
    net.ok(vec![
        (MAKER, add(NATIVE, alth("100"), TIN, alth("100"))),
        (MAKER, add(GOLD, alth("100"), TIN, alth("100"))),
        (TREASURY, Call::PoolDripSet { pool: gold_pool(), weight: 3 }),
        (TREASURY, Call::PoolDripSet { pool: tin, weight: 1 }),
        (TREASURY, Call::PoolDripSet { pool: idle, weight: 100 }),
        (MAKER, Call::LpStake { pool: gold_pool(), lp: alth("7") }),
        (MAKER, Call::LpStake { pool: tin, lp: alth("7") }),
    ]);
    fund(&mut net);
    net.wait(3_000);
    let earned = |net: &Net, id: PoolId| query::drip_earnings(&net.state, &MAKER, &id).0;
    let (three, one) = (earned(&net, gold_pool()), earned(&net, tin));
    assert!(one > 0 && three.abs_diff(3 * one) < 1_000, "{three} and {one}");
    // Without a weight there is no more; what was earned stays.
    net.ok(vec![(TREASURY, Call::PoolDripSet { pool: gold_pool(), weight: 0 })]);
    let three = earned(&net, gold_pool());
    net.wait(3_000);
    assert_eq!(earned(&net, gold_pool()), three);
    assert!(earned(&net, tin) > 2 * one);
    net.ok(vec![(MAKER, Call::DripClaim { pool: gold_pool() })]);
}

/// E-2, L-2: few pools share the drip, so that a block's work is bounded.
#[test]
fn a_limited_number_of_pools_shares_the_drip() {
    let mut genesis = genesis();
    let max = u32::try_from(DRIP_POOLS_MAX).unwrap();
    let more = (10..=10 + max).map(|n| GenesisAsset { asset: AssetId::Test(n), amount: alth("1") });
    genesis.accounts[0].assets.extend(more);
    let mut net = Net::of(&genesis, 3);
    for n in 10..=10 + max {
        let id = PoolId::of(NATIVE, AssetId::Test(n));
        net.ok(vec![(CLIENT, add(NATIVE, alth("1"), AssetId::Test(n), alth("1")))]);
        let expected = if n < 10 + max { Ok(()) } else { Err(E::TooManyDripPools { max }) };
        assert_eq!(net.call(TREASURY, Call::PoolDripSet { pool: id, weight: 1 }), expected);
    }
    let id = PoolId::of(NATIVE, AssetId::Test(10));
    assert_eq!(net.call(TREASURY, Call::PoolDripSet { pool: id, weight: 2 }), Ok(()), "one of them can be changed");
}

#[derive(Clone, Debug)]
enum Act {
    Stake(usize, u64),
    Unstake(usize, u64),
    Claim(usize),
    Wait(u64),
    Fund,
    Weigh(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0usize..3;
    prop_oneof![
        3 => (who.clone(), 1u64..300).prop_map(|(who, lp)| Act::Stake(who, lp)),
        2 => (who.clone(), 1u64..300).prop_map(|(who, lp)| Act::Unstake(who, lp)),
        1 => who.prop_map(Act::Claim),
        3 => (1u64..40_000).prop_map(Act::Wait),
        1 => Just(Act::Fund),
        1 => (0u32..3).prop_map(Act::Weigh),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// E-2, E-3: whatever stakers do, the drip is conserved (checked after every block), and what it
    /// says they can claim is what they are paid.
    #[test]
    fn stakers_are_paid_what_the_drip_says(acts in proptest::collection::vec(act(), 1..30)) {
        let mut net = net_with_pool();
        let (id, lp) = (gold_pool(), AssetId::Lp(gold_pool()));
        let people = [MAKER, CLIENT, OWNER];
        net.ok(vec![
            (MAKER, Call::AssetTransfer { asset: lp, to: CLIENT, amount: alth("600") }),
            (MAKER, Call::AssetTransfer { asset: lp, to: OWNER, amount: alth("600") }),
            (TREASURY, Call::PoolDripSet { pool: id, weight: 1 }),
        ]);
        fund(&mut net);
        for act in acts {
            match act {
                Act::Stake(who, lp) => drop(net.call(people[who], Call::LpStake { pool: id, lp: Amount::tokens(lp) })),
                Act::Unstake(who, lp) => drop(net.call(people[who], Call::LpUnstake { pool: id, lp: Amount::tokens(lp) })),
                Act::Claim(who) => {
                    let (free, said) = (net.free(people[who]), query::drip_earnings(&net.state, &people[who], &id));
                    let paid = net.call(people[who], Call::DripClaim { pool: id });
                    // The claim's own block adds its time.
                    prop_assert!(paid.is_ok() || said.is_zero());
                    prop_assert!(net.free(people[who]).0 - free.0 >= said.0);
                }
                Act::Wait(ms) => net.wait(ms),
                Act::Fund => fund(&mut net),
                Act::Weigh(weight) => net.ok(vec![(TREASURY, Call::PoolDripSet { pool: id, weight })]),
            }
        }
    }
}
