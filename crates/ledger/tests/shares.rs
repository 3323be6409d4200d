//! Model DAOs, by rule id: shares, what they earn, sales, votes on terms. (T-14)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::{SHARES_MAX, query};
use althing_types::{
    Address, Amount, AssetId, Auth, Call, Event, Genesis, Holding, LedgerError as E, ModelId, Params, Ppm, Sale,
    SessionPublicKey, SignedTx, Verification,
    call::{OrderSubmit, Scope},
    genesis::GenesisModel,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::*;

const ANN: Address = Address([0xa1; 20]);
const BOB: Address = Address([0xb0; 20]);

/// Quick lives: seeds at once, a window of a second, and a second model `feeder` of OWNER, which pays
/// its fees to whom its terms say.
fn quick(change: impl FnOnce(&mut Params)) -> (Net, ModelId) {
    let mut params = Params { seed_from_id: true, challenge_window_ms: 1_000, ..params() };
    change(&mut params);
    let mut genesis: Genesis = Net::genesis(3, "1000", params);
    let feeder = GenesisModel {
        name: "feeder".into(),
        owner: OWNER,
        package: output("feeder"),
        fee: alth("1"),
        payee: PAYEE,
        verification: Verification::Exact,
        reward: None,
    };
    genesis.models.push(feeder.clone());
    (Net::of(&genesis, 3), feeder.id())
}

fn shares(model: ModelId, to: Address, count: u64) -> Call {
    Call::AssetTransfer { asset: AssetId::Shares(model), to, amount: Amount(count.into()) }
}

/// A DAO of `count` shares on the first model.
fn dao(count: u64) -> Net {
    let mut net = quick(|_| {}).0;
    net.ok(vec![(OWNER, Call::DaoCreate { model: net.model, shares: count })]);
    net
}

/// An order for `model` that pays nothing but the model's fee, from submission to payout.
fn run(net: &mut Net, model: ModelId) {
    let fee = query::model(&net.state, &model).unwrap().fee;
    let submit = OrderSubmit { model, fee, max_total: fee, agreements: 0, ..net.submit("1") };
    let id = net.order(submit);
    net.solve(id, provider(1), "right");
    net.wait(1_100);
    assert!(net.get(&id).state.is_final());
}

fn held(net: &Net, holder: Address) -> u64 {
    query::shareholder(&net.state, &net.model, &holder).map_or(0, |holder| holder.shares)
}

fn earnings(net: &Net, holder: Address) -> Amount {
    query::share_earnings(&net.state, &net.model, &holder)
}

/// T-14: a DAO is made once, by the owner, with a limited number of shares, all of them the owner's.
#[test]
fn an_owner_turns_a_model_into_a_dao_once() {
    let mut net = quick(|_| {}).0;
    let (model, unknown) = (net.model, ModelId([9; 32]));
    let max = SHARES_MAX;
    for (who, call, expected) in [
        (OWNER, Call::DaoCreate { model: unknown, shares: 5 }, Err(E::UnknownModel(unknown))),
        (CLIENT, Call::DaoCreate { model, shares: 5 }, Err(E::NotOwner)),
        (OWNER, Call::DaoCreate { model, shares: 0 }, Err(E::SharesOutOfRange { max })),
        (OWNER, Call::DaoCreate { model, shares: max + 1 }, Err(E::SharesOutOfRange { max })),
        (OWNER, Call::SharesClaim { model }, Err(E::NoDao)),
        (OWNER, shares(model, ANN, 1), Err(E::NoDao)),
        (OWNER, Call::SaleOpen { model, shares: 1, price: alth("1") }, Err(E::NoDao)),
        (OWNER, Call::SaleClose { model }, Err(E::NoDao)),
        (OWNER, Call::SharesBuy { model, seller: OWNER, shares: 1, max_total: alth("1") }, Err(E::NoDao)),
        (OWNER, Call::DaoPropose { model, fee: alth("1"), payee: None }, Err(E::NoDao)),
        (OWNER, Call::DaoVote { model, approve: true }, Err(E::NoDao)),
        (OWNER, Call::DaoCreate { model, shares: max }, Ok(())),
        (OWNER, Call::DaoCreate { model, shares: 5 }, Err(E::DaoExists)),
        (CLIENT, Call::ModelTermsSet { model, fee: alth("2"), payee: OWNER }, Err(E::NotOwner)),
        (OWNER, Call::ModelTermsSet { model, fee: alth("2"), payee: OWNER }, Err(E::ModelIsDao)),
        (OWNER, Call::SharesClaim { model }, Err(E::NothingToClaim)),
        (OWNER, shares(model, ANN, 0), Err(E::ZeroAmount)),
        (OWNER, shares(model, ANN, 7), Ok(())),
        (ANN, shares(model, ANN, 7), Ok(())), // to oneself is harmless
        (
            ANN,
            shares(model, BOB, 8),
            Err(E::InsufficientAsset { asset: AssetId::Shares(model), needed: Amount(8), free: Amount(7) }),
        ),
    ] {
        assert_eq!(net.call(who, call.clone()), expected, "{call:?}");
    }
    assert_eq!((held(&net, OWNER), held(&net, ANN), held(&net, BOB)), (max - 7, 7, 0));
    let holding = Holding { asset: AssetId::Shares(model), free: Amount(7), locked: Amount::ZERO };
    assert_eq!(query::holdings(&net.state, &ANN, 9), vec![holding]);
    assert_eq!(query::asset_total(&net.state, AssetId::Shares(model)), Amount(max.into()));
    // A holder who has nothing left is forgotten.
    net.ok(vec![(ANN, shares(model, BOB, 7))]);
    assert_eq!(query::shareholder(&net.state, &model, &ANN), None);
    assert_eq!(query::shareholders(&net.state, &model, None, 9).len(), 2);
}

/// T-13, T-14: the terms at submission bind the order: what was ordered before still pays the payee.
#[test]
fn orders_submitted_before_the_dao_pay_whom_they_named() {
    let mut net = quick(|_| {}).0;
    let model = net.model;
    let before = net.open_order();
    net.ok(vec![(OWNER, Call::DaoCreate { model, shares: 4 })]);
    let after = net.open_order();
    net.solve(before, provider(1), "right");
    net.solve(after, provider(1), "right");
    net.wait(1_100);
    assert_eq!((net.free(PAYEE), earnings(&net, OWNER)), (alth("1"), alth("1")));
    let free = net.free(OWNER);
    net.ok(vec![(OWNER, Call::SharesClaim { model })]);
    assert_eq!(net.free(OWNER).0 - free.0, alth("1").0);
    // E-4: counted as earned from fees.
    assert_eq!(query::account(&net.state, &OWNER).earned.fees, alth("1"));
    assert_eq!(query::dao(&net.state, &model).unwrap().earned, alth("1"));
    assert_eq!(net.call(OWNER, Call::SharesClaim { model }), Err(E::NothingToClaim));
}

/// T-14: three holders, indivisible units: the carry waits for the next fee.
#[test]
fn three_holders_are_paid_to_the_unit() {
    let (mut net, feeder) = quick(|_| {});
    let model = net.model;
    let terms = |fee| (OWNER, Call::ModelTermsSet { model: feeder, fee, payee: model.dao_payee() });
    net.ok(vec![
        (OWNER, Call::DaoCreate { model, shares: 10 }),
        (OWNER, shares(model, ANN, 3)),
        (OWNER, shares(model, BOB, 2)),
        terms(Amount(19)),
    ]);
    let paid = |net: &Net| [OWNER, ANN, BOB].map(|holder| earnings(net, holder).0);
    run(&mut net, feeder); // 1 a share, carry 9
    assert_eq!(paid(&net), [5, 3, 2]);
    assert_eq!(query::dao(&net.state, &model).unwrap().carry, Amount(9));
    net.ok(vec![terms(Amount(1))]);
    run(&mut net, feeder); // 9 + 1: 1 a share
    assert_eq!(paid(&net), [10, 6, 4]);
    net.ok(vec![(ANN, shares(model, BOB, 3)), (BOB, Call::SharesClaim { model }), terms(Amount(105))]);
    run(&mut net, feeder); // 10 a share, carry 5
    assert_eq!(paid(&net), [60, 6, 50]);
    net.ok(vec![(ANN, Call::SharesClaim { model })]);
    assert_eq!(query::shareholder(&net.state, &model, &ANN), None, "she has nothing and is owed nothing");
    assert_eq!(query::supply(&net.state).owed, Amount(60 + 50 + 5));
}

#[derive(Clone, Debug)]
enum Step {
    Fee(u64),
    Move { from: usize, to: usize, count: u64 },
    Offer { who: usize, count: u64 },
    Buy { from: usize, to: usize, count: u64 },
    Claim(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0usize..4;
    prop_oneof![
        3 => (0u64..5_000).prop_map(Step::Fee),
        2 => (who.clone(), who.clone(), 0u64..60).prop_map(|(from, to, count)| Step::Move { from, to, count }),
        1 => (who.clone(), 1u64..60).prop_map(|(who, count)| Step::Offer { who, count }),
        2 => (who.clone(), who.clone(), 1u64..30).prop_map(|(from, to, count)| Step::Buy { from, to, count }),
        1 => who.prop_map(Step::Claim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// T-14: whatever moves in between, each holder gets what a book that is written for each fee says.
    #[test]
    fn holders_earn_what_a_book_of_each_fee_says(
        total in 1u64..100, steps in proptest::collection::vec(step(), 1..25)
    ) {
        let (mut net, feeder) = quick(|_| {});
        let model = net.model;
        let people = [OWNER, CLIENT, provider(2), provider(3)];
        net.ok(vec![(OWNER, Call::DaoCreate { model, shares: total })]);
        let (mut shares_of, mut owed, mut on_sale) = ([total, 0, 0, 0], [0u128; 4], [0u64; 4]);
        let mut carry = 0u128;
        for step in steps {
            match step {
                Step::Fee(fee) => {
                    let terms = Call::ModelTermsSet { model: feeder, fee: Amount(fee.into()), payee: model.dao_payee() };
                    net.ok(vec![(OWNER, terms)]);
                    run(&mut net, feeder);
                    let sum = u128::from(fee) + carry;
                    carry = sum % u128::from(total);
                    for who in 0..4 {
                        owed[who] += sum / u128::from(total) * u128::from(shares_of[who]);
                    }
                }
                Step::Move { from, to, count } => {
                    let fits = count > 0 && count <= shares_of[from] - on_sale[from];
                    let moved = net.call(people[from], shares(model, people[to], count));
                    prop_assert_eq!(moved.is_ok(), fits);
                    if fits {
                        shares_of[from] -= count;
                        shares_of[to] += count;
                    }
                }
                Step::Offer { who, count } => {
                    let done = net.call(people[who], Call::SaleOpen { model, shares: count, price: Amount(1) });
                    prop_assert_eq!(done.is_ok(), count <= shares_of[who]);
                    if done.is_ok() {
                        on_sale[who] = count;
                    }
                }
                Step::Buy { from, to, count } => {
                    let buy = Call::SharesBuy { model, seller: people[from], shares: count, max_total: Amount::MAX };
                    let done = net.call(people[to], buy);
                    // OWNER has no money before she sells or claims.
                    if done.is_ok() {
                        prop_assert!(count <= on_sale[from]);
                        on_sale[from] -= count;
                        shares_of[from] -= count;
                        shares_of[to] += count;
                    }
                }
                Step::Claim(who) => {
                    let done = net.call(people[who], Call::SharesClaim { model });
                    prop_assert_eq!(done.is_ok(), owed[who] > 0);
                    owed[who] = 0;
                }
            }
            for who in 0..4 {
                prop_assert_eq!(held(&net, people[who]), shares_of[who]);
                prop_assert_eq!(earnings(&net, people[who]), Amount(owed[who]));
            }
            prop_assert_eq!(query::dao(&net.state, &model).unwrap().carry, Amount(carry));
        }
    }
}

/// T-14: every way in which a sale is refused, and what a good one does.
#[test]
fn shares_are_sold_at_their_price_and_earn_for_the_seller_until_then() {
    let mut net = dao(10);
    let model = net.model;
    let open = |shares, price| Call::SaleOpen { model, shares, price: alth(price) };
    let buy = |shares, max: &str| Call::SharesBuy { model, seller: OWNER, shares, max_total: alth(max) };
    for (who, call, expected) in [
        (OWNER, open(0, "1"), Err(E::ZeroAmount)),
        (OWNER, open(1, "0"), Err(E::ZeroAmount)),
        (OWNER, open(11, "1"), Err(E::NotEnoughShares { available: 10 })),
        (ANN, open(1, "1"), Err(E::NotEnoughShares { available: 0 })),
        (OWNER, Call::SaleClose { model }, Err(E::NoSale)),
        (CLIENT, buy(1, "9"), Err(E::NoSale)),
        (OWNER, open(9, "1"), Ok(())),
        (OWNER, open(6, "150.5"), Ok(())), // replaces the first
        (CLIENT, buy(0, "9"), Err(E::ZeroAmount)),
        (CLIENT, buy(7, "9"), Err(E::SaleTooSmall { left: 6 })),
        (CLIENT, buy(2, "300"), Err(E::SharesAboveMaxTotal { total: alth("301"), max_total: alth("300") })),
        (ANN, buy(2, "301"), Err(E::InsufficientBalance { needed: alth("301"), free: Amount::ZERO })),
    ] {
        assert_eq!(net.call(who, call.clone()), expected, "{call:?}");
    }
    let short = E::InsufficientAsset { asset: AssetId::Shares(model), needed: Amount(5), free: Amount(4) };
    assert_eq!(net.call(OWNER, shares(model, ANN, 5)), Err(short), "what is on sale is not free");
    run(&mut net, model);
    assert_eq!(earnings(&net, OWNER), alth("1"));
    let before = net.free(CLIENT);
    net.ok(vec![(CLIENT, buy(2, "301"))]);
    assert_eq!((before.0 - net.free(CLIENT).0, net.free(OWNER)), (alth("301").0, alth("301")));
    assert_eq!((held(&net, OWNER), held(&net, CLIENT)), (8, 2));
    let sale = |net: &Net| query::shareholder(&net.state, &model, &OWNER).unwrap().sale;
    assert_eq!(sale(&net), Some(Sale { shares: 4, price: alth("150.5") }));
    run(&mut net, model);
    assert_eq!((earnings(&net, OWNER), earnings(&net, CLIENT)), (alth("1.8"), alth("0.2")));
    net.ok(vec![(OWNER, Call::SaleClose { model }), (OWNER, shares(model, ANN, 8))]);
    assert_eq!(net.call(CLIENT, buy(1, "900")), Err(E::NoSale));
}

/// T-14: a sale that is bought out is over, and buying from oneself only ends the own offer.
#[test]
fn a_sale_ends_with_its_last_share() {
    let mut net = dao(10);
    let model = net.model;
    net.ok(vec![(OWNER, shares(model, CLIENT, 5)), (CLIENT, Call::SaleOpen { model, shares: 3, price: alth("1") })]);
    let free = net.free(CLIENT);
    let buy = Call::SharesBuy { model, seller: CLIENT, shares: 3, max_total: alth("3") };
    net.ok(vec![(CLIENT, buy.clone())]);
    assert_eq!((net.free(CLIENT), held(&net, CLIENT)), (free, 5));
    assert_eq!(net.call(provider(1), buy), Err(E::NoSale));
}

/// T-14: every way in which a proposal or vote is refused.
#[test]
fn holders_vote_once_on_one_proposal_at_a_time() {
    let mut net = dao(100);
    let model = net.model;
    net.ok(vec![(OWNER, shares(model, ANN, 30)), (OWNER, shares(model, BOB, 30))]);
    let propose = Call::DaoPropose { model, fee: alth("2"), payee: None };
    let vote = |approve| Call::DaoVote { model, approve };
    let ends_ms = query::clock(&net.state).active_ms + 300 + params().dao_voting_ms;
    for (who, call, expected) in [
        (ANN, vote(true), Err(E::NoDaoProposal)),
        (CLIENT, propose.clone(), Err(E::NotShareholder)),
        (ANN, propose.clone(), Ok(())),
        (BOB, propose.clone(), Err(E::DaoProposalOpen { ends_ms })),
        (CLIENT, vote(true), Err(E::NotShareholder)),
        (ANN, vote(true), Ok(())),
        (ANN, vote(true), Err(E::DaoVoteExists)),
        (ANN, vote(false), Err(E::DaoVoteExists)),
    ] {
        assert_eq!(net.call(who, call.clone()), expected, "{call:?}");
    }
    net.wait(params().dao_voting_ms);
    assert_eq!(net.call(BOB, vote(true)), Err(E::NoDaoProposal));
    let closed = Event::DaoProposalClosed { model, number: 1, accepted: true, yes: 30, no: 0 };
    assert!(net.events.contains(&closed), "the due queue ends it: 30 % is above the quorum of 20 %");
    assert_eq!(query::model(&net.state, &model).unwrap().fee, alth("2"));
}

/// T-14: votes weigh the shares held at the end of the block before the proposal, wherever they go.
#[test]
fn shares_that_move_after_a_proposal_do_not_vote_twice() {
    let mut net = dao(100);
    let model = net.model;
    let vote = |approve| Call::DaoVote { model, approve };
    net.ok(vec![(OWNER, shares(model, ANN, 40))]);
    // In one block: shares move, the proposal opens, shares move on.
    net.ok(vec![
        (ANN, shares(model, BOB, 15)),
        (OWNER, Call::DaoPropose { model, fee: alth("2"), payee: None }),
        (ANN, shares(model, BOB, 20)),
    ]);
    assert_eq!(net.call(BOB, vote(true)), Err(E::NotShareholder), "he held nothing before");
    net.ok(vec![(BOB, shares(model, ANN, 35)), (OWNER, shares(model, CLIENT, 60))]);
    net.ok(vec![(ANN, shares(model, CLIENT, 30)), (ANN, vote(false))]);
    assert_eq!(net.call(CLIENT, vote(true)), Err(E::NotShareholder));
    let proposal = query::dao(&net.state, &model).unwrap().proposal.unwrap();
    assert_eq!((proposal.yes, proposal.no), (0, 40));
    net.ok(vec![(OWNER, vote(true))]); // sold everything since, and decides
    let closed = Event::DaoProposalClosed { model, number: 1, accepted: true, yes: 60, no: 40 };
    assert!(net.events.contains(&closed));
    // The next proposal counts them where they are now.
    net.ok(vec![(ANN, Call::DaoPropose { model, fee: alth("3"), payee: None })]);
    assert_eq!(net.call(OWNER, vote(true)), Err(E::NotShareholder));
    net.ok(vec![(CLIENT, vote(false))]);
    let closed = Event::DaoProposalClosed { model, number: 2, accepted: false, yes: 0, no: 90 };
    assert!(net.events.contains(&closed), "a majority against it ends it at once");
    assert_eq!(query::model(&net.state, &model).unwrap().fee, alth("2"));
}

/// T-14, T-18: too few votes change nothing; the quorum is that of the opening.
#[test]
fn new_terms_need_a_majority_and_a_quorum() {
    let (mut net, _) = quick(|params| params.dao_quorum = Ppm(200_001));
    let model = net.model;
    net.ok(vec![(OWNER, Call::DaoCreate { model, shares: 100 }), (OWNER, shares(model, ANN, 20))]);
    net.ok(vec![(OWNER, shares(model, BOB, 21))]);
    for (voters, accepted) in [
        (vec![(ANN, true)], false),
        (vec![(BOB, true)], true),
        (vec![(BOB, false), (ANN, true)], false),
        (vec![(OWNER, true)], true),
    ] {
        let fee = query::model(&net.state, &model).unwrap().fee;
        let new = Amount(fee.0 + 1);
        net.ok(vec![(OWNER, Call::DaoPropose { model, fee: new, payee: None })]);
        net.ok(voters.iter().map(|(who, approve)| (*who, Call::DaoVote { model, approve: *approve })).collect());
        net.wait(params().dao_voting_ms);
        assert_eq!(query::dao(&net.state, &model).unwrap().proposal, None);
        let expected = if accepted { new } else { fee };
        assert_eq!(query::model(&net.state, &model).unwrap().fee, expected, "{voters:?}");
    }
}

/// T-13, T-14: holders may send the fee elsewhere, for orders submitted later, and take it back.
#[test]
fn holders_decide_who_gets_the_fee() {
    let mut net = dao(10);
    let model = net.model;
    let decide = |net: &mut Net, payee| {
        net.ok(vec![(OWNER, Call::DaoPropose { model, fee: alth("2"), payee })]);
        net.ok(vec![(OWNER, Call::DaoVote { model, approve: true })]);
    };
    let earlier = net.open_order();
    decide(&mut net, Some(BOB));
    run(&mut net, model);
    assert_eq!((net.free(BOB), earnings(&net, OWNER)), (alth("2"), Amount::ZERO));
    net.solve(earlier, provider(2), "right");
    net.wait(1_100);
    assert_eq!(earnings(&net, OWNER), alth("1"), "the terms at submission bind");
    decide(&mut net, None);
    run(&mut net, model);
    assert_eq!((net.free(BOB), earnings(&net, OWNER)), (alth("2"), alth("3")));
}

/// A session key's limit counts the most that a call may take out of the free balance.
#[test]
fn session_keys_spend_within_their_limit_on_shares_and_assets() {
    let mut net = dao(10);
    let model = net.model;
    net.ok(vec![(OWNER, Call::SaleOpen { model, shares: 5, price: alth("1") })]);
    let key = SessionPublicKey([5; 32]);
    let add = |scope| Call::SessionKeyAdd { key, scope, spend_limit: alth("5"), expires_at_ms: u64::MAX };
    let buy = |max: &str| Call::SharesBuy { model, seller: OWNER, shares: 1, max_total: alth(max) };
    let send = |amount: &str| Call::AssetTransfer { asset: AssetId::Native, to: BOB, amount: alth(amount) };
    let mut results = BTreeMap::new();
    for scope in [Scope::All, Scope::Client, Scope::Provider] {
        let mut net = net.clone();
        net.ok(vec![(CLIENT, add(scope))]);
        let first = query::session_key(&net.state, &CLIENT, &key).unwrap().nonce;
        let mut errors = Vec::new();
        for (nonce, call) in (first..).zip([buy("6"), buy("3"), send("3"), send("2")]) {
            let auth = Auth::Session { account: CLIENT, key, signature: [0; 64] };
            let tx = SignedTx { call, nonce, expires_at_ms: u64::MAX, auth };
            net.block.height += 1;
            net.block.time_ms += 1;
            let output = althing_ledger::execute_block(&net.state, &net.block, &[tx]);
            althing_ledger::apply(&mut net.state, output.writes.clone());
            errors.push(output.receipts[0].error.clone());
        }
        results.insert(format!("{scope:?}"), errors);
    }
    let limit = |needed, left| Some(E::SpendLimit { needed: alth(needed), left: alth(left) });
    assert_eq!(results["All"], vec![limit("6", "5"), None, limit("3", "2"), None]);
    assert_eq!(results["Client"], vec![Some(E::OutOfScope); 4]);
    assert_eq!(results["Provider"], vec![Some(E::OutOfScope); 4]);
}
