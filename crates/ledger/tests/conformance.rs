//! Digests of the codec and of states: they change only on purpose, because old blocks must stay
//! readable and every node must get the same state. A change here is a fork of running networks.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_types::{
    Address, Amount, AssetId, Auth, BallotAnswer, Call, ContentSource, Hash, Input, Lane, LedgerError, ModelId,
    ModelReward, OrderId, ParamChange, PoolId, Ppm, SessionPublicKey, SignedTx, Verification, VoteChoice,
    call::{OrderBudget, OrderSubmit, Scope},
    decode, encode,
};
use std::collections::BTreeSet;
use support::*;

fn calls() -> Vec<Call> {
    let (address, amount, cid) = (Address([1; 20]), Amount(5), output("x"));
    let (order, model, key) = (OrderId([2; 32]), ModelId([3; 32]), SessionPublicKey([4; 32]));
    let pool = PoolId([10; 32]);
    let submit = |lane, input| {
        Call::OrderSubmit(OrderSubmit {
            model,
            input,
            fee: amount,
            max_total: amount,
            lane,
            deadline_ms: 9,
            seed: Some(8),
            agreements: 2,
            parent: Some(order),
            budget: Some(OrderBudget { amount: Amount(7), until_ms: 8 }),
        })
    };
    vec![
        Call::Transfer { to: address, amount },
        Call::SessionKeyAdd { key, scope: Scope::Provider, spend_limit: amount, expires_at_ms: 7 },
        Call::SessionKeyRevoke { key },
        Call::Bond { amount },
        Call::Unbond { amount },
        Call::ModelRegister {
            name: "m".into(),
            package: cid,
            fee: amount,
            payee: address,
            verification: Verification::Exact,
        },
        Call::ModelTermsSet { model, fee: amount, payee: address },
        Call::ModelSupport { models: vec![model], endpoint: "http://a".into() },
        submit(Lane::Open, Input::Inline { bytes: vec![1, 2] }),
        submit(Lane::Chosen { provider: address }, Input::Content { cid, size: 3, source: None }),
        submit(Lane::Open, Input::Content { cid, size: 3, source: Some(ContentSource("http://a".into())) }),
        Call::OrderCommit { order, commitment: Hash([5; 32]) },
        Call::OrderReveal { order, output: cid, output_size: 6, salt: Hash([6; 32]) },
        Call::OrderAccept { order },
        Call::OrderComplete { order, output: cid, output_size: 6 },
        Call::OrderCancel { order },
        Call::Agree { order, output: cid },
        Call::Contest { order, ballot: None },
        Call::Vote { order, refute: true },
        Call::Contest { order, ballot: Some(Hash([7; 32])) },
        Call::VoteCommit { order, ballot: Hash([7; 32]) },
        Call::VoteOpen { order, answer: BallotAnswer::Output { output: cid }, salt: Hash([8; 32]) },
        Call::VoteOpen { order, answer: BallotAnswer::InputUnavailable, salt: Hash([8; 32]) },
        Call::OrderClaim { order },
        Call::Delegate { provider: address, amount },
        Call::Undelegate { provider: address, amount: Some(amount) },
        Call::DelegationMove { from: address, to: Address([9; 20]), amount: None },
        Call::DelegationClaim { provider: address },
        Call::CommissionSet { commission: Ppm(125_000) },
        Call::ModelRewardSet { model, reward: Some(ModelReward { rate: 1_000_000, unit_bytes: 1_000 }) },
        Call::VotesDelegate { to: address },
        Call::ProposalCreate {
            title: "t".into(),
            description: "d".into(),
            calls: vec![Call::UpgradeCancel, Call::Transfer { to: address, amount }],
        },
        Call::ProposalVote { proposal: 7, choice: VoteChoice::For },
        Call::ProposalVote { proposal: 7, choice: VoteChoice::Against },
        Call::ProposalVote { proposal: 7, choice: VoteChoice::Abstain },
        Call::ProposalQueue { proposal: 7 },
        Call::ProposalExecute { proposal: 7 },
        Call::ProposalCancel { proposal: 7 },
        Call::ParamsSet { changes: vec![ParamChange { name: "jail_ms".into(), value: 8 }] },
        Call::UpgradeSchedule { version: 2, height: 9 },
        Call::UpgradeCancel,
        Call::AssetTransfer { asset: AssetId::Shares(model), to: address, amount },
        Call::AssetTransfer { asset: AssetId::Native, to: address, amount },
        Call::DaoCreate { model, shares: 100 },
        Call::SharesClaim { model },
        Call::SaleOpen { model, shares: 10, price: amount },
        Call::SaleClose { model },
        Call::SharesBuy { model, seller: address, shares: 3, max_total: amount },
        Call::DaoPropose { model, fee: amount, payee: None },
        Call::DaoPropose { model, fee: amount, payee: Some(address) },
        Call::DaoVote { model, approve: true },
        Call::DaoVote { model, approve: false },
        Call::PoolAdd {
            a: AssetId::Test(7),
            b: AssetId::Native,
            amount_a: amount,
            amount_b: Amount(6),
            lp_min: Amount::ZERO,
        },
        Call::PoolRemove { pool, lp: amount, a_min: Amount(1), b_min: Amount(2) },
        Call::Swap { asset_in: AssetId::Lp(pool), amount_in: amount, asset_out: AssetId::Native, out_min: Amount(1) },
        Call::LpStake { pool, lp: amount },
        Call::LpUnstake { pool, lp: amount },
        Call::DripClaim { pool },
        Call::PoolDripSet { pool, weight: 4 },
        Call::InputConfirm { order },
        Call::BudgetClose { order },
    ]
}

#[test]
fn every_call_is_encoded_here_and_has_the_name_of_its_json() {
    let names: BTreeSet<_> = calls().iter().map(Call::name).collect();
    assert_eq!(names, Call::NAMES.iter().copied().collect(), "a call is missing here or in Call::NAMES");
    for call in calls() {
        let json = serde_json::to_value(&call).unwrap();
        assert_eq!(json["call"], call.name());
        assert_eq!(serde_json::from_value::<Call>(json).unwrap(), call);
        assert_eq!(decode::<Call>(&encode(&call)).unwrap(), call);
        assert!(!call.summary().is_empty() && call.units() > 0, "{}", call.name());
    }
}

fn digest(parts: impl IntoIterator<Item = Vec<u8>>) -> String {
    let mut all = Hash::ZERO;
    for part in parts {
        all = Hash::of(&[all.as_bytes(), &part]);
    }
    all.to_string()
}

#[test]
fn calls_and_transactions_are_encoded_as_ever() {
    let txs = calls().into_iter().enumerate().map(|(index, call)| {
        let account = Address([1; 20]);
        let auth = match index % 2 {
            0 => Auth::Wallet { account, signature: [7; 65] },
            _ => Auth::Session { account, key: SessionPublicKey([8; 32]), signature: [9; 64] },
        };
        encode(&SignedTx { call, nonce: index as u64, expires_at_ms: 1, auth })
    });
    assert_eq!(digest(txs), CALLS);
    let summaries = calls().into_iter().map(|call| call.summary().into_bytes());
    assert_eq!(digest(summaries), SUMMARIES, "what wallets show is signed, so it is part of the codec");
}
const CALLS: &str = "2211d3c43b11ec004bb69a9dc2a0cf1173526fa0458a9536d58c102143853603";
const SUMMARIES: &str = "d1d175b0e313aedfb25dcb234101bc454b13aa7995dbdf34aafcc09758d80711";

#[test]
fn a_scripted_life_gives_the_state_that_it_always_gave() {
    let mut net = Net::new(4);
    let claimed = net.open_order();
    net.solve(claimed, provider(1), "right");
    net.agree(claimed, provider(2), "right").unwrap();
    let refuted = net.open_order();
    net.solve(refuted, provider(3), "wrong");
    net.ok(vec![(provider(1), Call::Contest { order: refuted, ballot: None })]);
    net.ok(vec![(provider(2), Call::Vote { order: refuted, refute: true })]);
    assert_eq!(net.call(provider(3), Call::Vote { order: refuted, refute: false }), Err(LedgerError::VoteExists));
    net.ok(vec![
        (provider(4), Call::Unbond { amount: alth("5") }),
        (CLIENT, Call::Transfer { to: OWNER, amount: alth("1") }),
    ]);
    net.ok(vec![(provider(1), Call::VotesDelegate { to: OWNER })]);
    let calls = vec![Call::UpgradeSchedule { version: 2, height: 1_000_000 }];
    net.ok(vec![(OWNER, Call::ProposalCreate { title: "t".into(), description: "d".into(), calls })]);
    net.wait(2_000);
    net.ok(vec![(OWNER, Call::ProposalVote { proposal: 1, choice: VoteChoice::For })]);
    net.wait(20_000);
    net.ok(vec![(CLIENT, Call::ProposalQueue { proposal: 1 })]);
    net.wait(4_000);
    net.ok(vec![(CLIENT, Call::ProposalExecute { proposal: 1 })]);
    let state = net.state.iter().map(|(key, value)| encode(&(key, value)));
    assert_eq!(digest(state), STATE);
    assert_eq!(digest(net.events.iter().map(encode)), EVENTS);
}
const STATE: &str = "7a7d5f977998720774a73e5aa478bac5ceb4ceb06d6c6709f380ed3916259d86";
const EVENTS: &str = "02e6dd4289e1452c1a95d4014b98772b354986003e5b40e1c528d3c994b08bae";
