//! Every contest, whatever the stakes and votes, divides exactly what it slashes. (T-8, T-10)

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use althing_ledger::query;
use althing_types::{Address, Amount, Call, Event, OrderId, OrderState, Outcome, Params, Ppm, event::PaymentKind};
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::*;

const VOTERS: u8 = 8;

/// What a voter does: nothing, for, against, a third answer, or commits without opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Nothing,
    Upholds,
    Refutes,
    Dissents,
    Hides,
}

fn does() -> impl Strategy<Value = Does> {
    use Does::*;
    proptest::sample::select(vec![Nothing, Upholds, Refutes, Refutes, Dissents, Hides])
}

fn units(count: u64) -> Amount {
    Amount(Amount::TOKEN.0 / 1_000_003 * u128::from(count))
}

struct Contest {
    net: Net,
    id: OrderId,
}

/// Providers 1 to 8 with uneven stakes, some of it delegated; 1 answered, 2 contests.
fn contest(params: Params, bonds: &[u64], delegations: &[u64]) -> Contest {
    let mut net = Net::with(VOTERS, "20", params);
    let mut calls = Vec::new();
    for n in 1..=VOTERS {
        calls.push((provider(n), Call::Bond { amount: units(bonds[usize::from(n) - 1]) }));
        let amount = units(delegations[usize::from(n) - 1]);
        calls.push((CLIENT, Call::Delegate { provider: provider(n), amount }));
    }
    net.ok(calls);
    let id = net.open_order();
    net.solve(id, provider(1), "standing");
    let contest = match net.state_params().votes_committed {
        true => net.contest_call(id, provider(2), "other"),
        false => Call::Contest { order: id, ballot: None },
    };
    net.ok(vec![(provider(2), contest)]);
    Contest { net, id }
}

impl Contest {
    fn vote_openly(&mut self, voters: &[Does]) {
        for (n, does) in (3..=VOTERS).zip(voters) {
            let refute = match does {
                Does::Nothing | Does::Hides => continue,
                Does::Upholds => false,
                Does::Refutes | Does::Dissents => true,
            };
            self.net.ok(vec![(provider(n), Call::Vote { order: self.id, refute })]);
        }
        self.net.wait(8_000);
    }

    fn vote_by_ballot(&mut self, voters: &[Does], contester_opens: bool) {
        let answer = |does: &Does| match does {
            Does::Upholds => says("standing"),
            Does::Dissents => says("third"),
            _ => says("other"),
        };
        for round in [0, 1] {
            self.net.jury(self.id);
            if round == 1 {
                let ballot = self.net.ballot(self.id, provider(2), 1, says("other"));
                let _ = self.net.call(provider(2), Call::VoteCommit { order: self.id, ballot });
            }
            for (n, does) in (3..=VOTERS).zip(voters).filter(|(_, does)| **does != Does::Nothing) {
                let ballot = self.net.ballot(self.id, provider(n), round, answer(does));
                let _ = self.net.call(provider(n), Call::VoteCommit { order: self.id, ballot });
            }
            let ends = self.net.case(&self.id).voting_ends_ms;
            self.net.wait(ends.saturating_sub(self.net.block.time_ms).max(100));
            if contester_opens {
                let _ = self.net.call(provider(2), open_call(self.id, provider(2), round, says("other")));
            }
            for (n, does) in (3..=VOTERS).zip(voters).filter(|(_, does)| **does != Does::Hides) {
                let _ = self.net.call(provider(n), open_call(self.id, provider(n), round, answer(does)));
            }
            self.net.wait(3_100);
            if self.net.case(&self.id).outcome.is_some() {
                return;
            }
        }
    }

    /// What was slashed went to winners and treasury, to the unit; who won and lost fits the outcome.
    fn check(&self) -> Result<(), TestCaseError> {
        let (net, id) = (&self.net, self.id);
        let case = net.case(&id);
        prop_assert!(case.outcome.is_some(), "no case hangs");
        let mut slashed: BTreeMap<Address, u128> = BTreeMap::new();
        let (mut taken, mut given) = (0u128, 0u128);
        for event in &net.events {
            match event {
                Event::Slashed { provider, amount, order, .. } if *order == id => {
                    *slashed.entry(*provider).or_default() += amount.0;
                    taken += amount.0;
                }
                Event::Paid { amount, kind, order, .. } | Event::DelegatorsEarned { amount, kind, order, .. }
                    if *order == id =>
                {
                    use PaymentKind::*;
                    if matches!(kind, SlashLeader | SlashJuror | SlashTreasury) {
                        given += amount.0;
                    }
                }
                _ => {}
            }
        }
        prop_assert_eq!(taken, given, "nothing is made or lost in a contest");
        match case.outcome {
            Some(Outcome::Refuted) => {
                prop_assert!(slashed.contains_key(&provider(1)));
                let state = net.get(&id).state;
                prop_assert!(matches!(state, OrderState::Refunded { .. }), "the client has its fee back");
            }
            Some(Outcome::Upheld) => {
                prop_assert!(slashed.contains_key(&provider(2)));
                prop_assert!(!slashed.contains_key(&provider(1)));
            }
            _ => prop_assert!(!slashed.contains_key(&provider(1)), "nobody decided"),
        }
        for n in 1..=VOTERS {
            let reserved = query::provider(&net.state, &provider(n)).unwrap().reserved;
            let standing = case.outcome != Some(Outcome::Refuted) && n == 1;
            prop_assert!(reserved.is_zero() || standing, "provider {n} still has {reserved} reserved");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_open_contest_divides_exactly_what_it_slashes(
        bonds in proptest::collection::vec(1u64..30_000_000, 8),
        delegations in proptest::collection::vec(1u64..9_000_000, 8),
        voters in proptest::collection::vec(does(), 6),
        halves: bool, slash in 1u32..500_000,
    ) {
        let shares = if halves { (Ppm(500_000), Ppm(500_000)) } else { (Ppm(400_000), Ppm(300_000)) };
        let params = Params { slash: Ppm(slash), slash_leader: shares.0, slash_jurors: shares.1, ..params() };
        let mut contest = contest(params, &bonds, &delegations);
        contest.vote_openly(&voters);
        contest.check()?;
    }

    #[test]
    fn every_jurys_contest_divides_exactly_what_it_slashes(
        bonds in proptest::collection::vec(1u64..30_000_000, 8),
        delegations in proptest::collection::vec(1u64..9_000_000, 8),
        voters in proptest::collection::vec(does(), 6),
        contester_opens in proptest::bool::weighted(0.8), seats in 1u32..6, slash in 1u32..500_000,
    ) {
        let params = Params { jury_seats: seats, jury_seats_redrawn: 7, slash: Ppm(slash), ..params_committed() };
        let mut contest = contest(params, &bonds, &delegations);
        contest.vote_by_ballot(&voters, contester_opens);
        contest.check()?;
    }
}
