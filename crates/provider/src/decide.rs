//! From what the ledger says to a provider's next step, as a pure function.
//!
//! It looks at states, not at events: after a crash, a lost connection or a missed block the same
//! look at the order gives the right step.

use althing_types::{Address, Case, Cid, Lane, Order, OrderState, object::SOLUTIONS_MAX};

/// What a provider does next about one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something happens to the order.
    Nothing,
    /// Run the model, then decide again.
    Run,
    /// Open lane: promise the result. (T-3)
    Commit,
    /// Open lane: show what was promised. (T-3)
    Reveal,
    /// Chosen lane: deliver what was accepted before a restart. (M-5)
    Complete,
    /// Confirm the standing solution. (V-1)
    Agree,
    /// Dispute the standing solution. (T-7)
    Contest,
    /// Vote openly in the dispute. (T-7)
    Vote { refute: bool },
    /// As a juror, commit to the own result. (T-7)
    VoteCommit,
    /// Open the vote that was committed. (T-7)
    VoteOpen,
}

/// What the provider knows besides the ledger.
#[derive(Clone, Debug)]
pub struct Situation {
    pub me: Address,
    /// The ledger's times: the clock's may be ahead.
    pub now_ms: u64,
    /// Without standstills: what windows and votes are measured in.
    pub active_ms: u64,
    /// Whether the model can be run here.
    pub serves: bool,
    /// Whether a run for what the order offers now pays, as the policy says. (T-12)
    pub worthwhile: bool,
    /// Whether an answer of others is re-run even so. (T-11)
    pub watches: bool,
    /// What the own run gave, if there was one.
    pub result: Option<Cid>,
    /// Whether a promise for the order is at hand.
    pub promised: bool,
    /// Whether its client is being delivered to at this moment.
    pub delivering: bool,
}

/// The next step about `order`, whose newest case is `case`.
///
/// Profit decides about runs alone: once there is a result, what it cost is spent, and it is promised,
/// agreed with, or held against a different answer, whatever has become of the offer. (T-12)
pub fn decide(order: &Order, case: Option<&Case>, situation: &Situation) -> Step {
    let Situation { me, now_ms, active_ms, .. } = *situation;
    if !situation.serves || order.client == me {
        return Step::Nothing;
    }
    // Without a seed nobody can run it.
    if order.seed.is_none() {
        return Step::Nothing;
    }
    let result = situation.result.as_ref();
    match &order.state {
        OrderState::Submitted => match order.lane {
            Lane::Chosen { .. } => Step::Nothing,
            Lane::Open => {
                let committed = order.commitments.iter().any(|c| c.provider == me && c.expires_ms > now_ms);
                if committed {
                    if situation.promised { Step::Reveal } else { Step::Nothing }
                } else if order.cancelled || now_ms >= order.deadline_ms {
                    Step::Nothing
                } else if result.is_some() {
                    Step::Commit
                } else if situation.worthwhile {
                    Step::Run
                } else {
                    Step::Nothing
                }
            }
        },
        OrderState::Accepted { deliver_by_ms } => {
            let mine = order.lane == Lane::Chosen { provider: me };
            if !mine || situation.delivering || now_ms >= *deliver_by_ms {
                Step::Nothing
            } else if result.is_none() {
                Step::Run
            } else {
                Step::Complete
            }
        }
        OrderState::Solved { claim_at_ms } => {
            let Some(standing) = order.solutions.first() else { return Step::Nothing };
            let agreed = order.agreements.iter().any(|a| a.provider == me);
            if standing.provider == me || agreed || active_ms >= *claim_at_ms {
                return Step::Nothing;
            }
            match result {
                None if situation.worthwhile || situation.watches => Step::Run,
                None => Step::Nothing,
                Some(result) if *result != standing.output => Step::Contest,
                Some(_) if order.agreements.len() < usize::from(order.agreements_wanted) => Step::Agree,
                Some(_) => Step::Nothing,
            }
        }
        OrderState::Contested { .. } => {
            let (Some(standing), Some(case)) = (order.solutions.first(), case) else { return Step::Nothing };
            let Some(result) = result else {
                return if standing.provider == me || case.outcome.is_some() { Step::Nothing } else { Step::Run };
            };
            let committed = order.commitments.iter().any(|c| c.provider == me && c.expires_ms > now_ms);
            let refute = *result != standing.output;
            if refute && committed && situation.promised && order.solutions.len() < SOLUTIONS_MAX {
                // Whoever promised the right answer shows it now: it replaces the wrong one.
                return Step::Reveal;
            }
            if case.outcome.is_some() || standing.provider == me {
                return Step::Nothing;
            }
            let mine = case.votes.iter().find(|vote| vote.provider == me);
            let voting = active_ms < case.voting_ends_ms;
            let Some(jury) = &case.jury else {
                return if mine.is_none() && voting { Step::Vote { refute } } else { Step::Nothing };
            };
            let drawn = jury.seats.iter().flatten().any(|juror| juror.provider == me);
            let again = jury.round > 0 && jury.seats.is_some() && case.contester == me;
            match mine {
                None if voting && (drawn || again) => Step::VoteCommit,
                Some(vote) if vote.answer.is_none() && !voting && active_ms < case.opening_ends_ms => Step::VoteOpen,
                _ => Step::Nothing,
            }
        }
        OrderState::Claimed | OrderState::Refunded { .. } => Step::Nothing,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use althing_types::{
        Agreement, Amount, Availability, BallotAnswer, Commitment, Hash, Input, ModelId, OrderId, RefundReason,
        Solution, Vote,
        object::{CaseTerms, Juror, Jury},
    };

    const ME: Address = Address([1; 20]);
    const OTHER: Address = Address([2; 20]);
    const NOW: u64 = 10_000;

    fn cid(text: &str) -> Cid {
        althing_content::file_cid(text.as_bytes())
    }

    pub(crate) fn order(state: OrderState) -> Order {
        Order {
            id: OrderId([7; 32]),
            number: 1,
            client: Address([9; 20]),
            model: ModelId([5; 32]),
            package: cid("package"),
            lane: Lane::Open,
            input: Input::Inline { bytes: vec![] },
            input_cid: cid(""),
            fee: Amount::tokens(1),
            model_fee: Amount::ZERO,
            model_payee: OTHER,
            submitted_height: 1,
            submitted_view: 1,
            submitted_ms: 0,
            deadline_ms: 60_000,
            seed: Some(1),
            seed_by_client: false,
            agreements_wanted: 1,
            parent: None,
            depth: 0,
            state,
            commitments_made: 0,
            commitments: vec![],
            solutions: vec![],
            agreements: vec![],
            cancelled: false,
            claimed_by: None,
            deposit: Amount::ZERO,
            availability: Availability::Inline,
            root: OrderId([7; 32]),
            budgeted: false,
        }
    }

    pub(crate) fn solution(provider: Address, output: &str) -> Solution {
        Solution {
            provider,
            output: cid(output),
            output_size: 1,
            height: 1,
            time_ms: 1,
            active_ms: 1,
            weight: Amount::tokens(10),
            reserved: Amount::tokens(1),
            commitment_index: 0,
        }
    }

    pub(crate) fn commitment(provider: Address) -> Commitment {
        Commitment { provider, hash: Hash::ZERO, height: 1, expires_ms: 30_000, index: 0 }
    }

    fn solved(provider: Address, output: &str) -> Order {
        Order { solutions: vec![solution(provider, output)], ..order(OrderState::Solved { claim_at_ms: 20_000 }) }
    }

    fn contested(output: &str) -> Order {
        Order { state: OrderState::Contested { claim_at_ms: 20_000 }, ..solved(OTHER, output) }
    }

    fn case(voters: &[Address]) -> Case {
        let vote = |provider: &Address| Vote {
            provider: *provider,
            weight: Amount::ZERO,
            reserved: Amount::ZERO,
            inherited: false,
            ballot: None,
            answer: Some(BallotAnswer::Refute),
        };
        Case {
            order: OrderId([7; 32]),
            contester: OTHER,
            solver: OTHER,
            output: cid("wrong"),
            opened_height: 1,
            opened_ms: 1,
            opened_active_ms: 1,
            voting_ends_ms: 15_000,
            opening_ends_ms: 15_000,
            votes: voters.iter().map(vote).collect(),
            jury: None,
            terms: CaseTerms::default(),
            outcome: None,
        }
    }

    /// A case with committed votes, whose jury is drawn.
    fn jury_case(jurors: &[Address], committed: &[Address], round: u8) -> Case {
        let seats = jurors.iter().map(|provider| Juror { provider: *provider, weight: Amount::ZERO }).collect();
        let mut case = Case { opening_ends_ms: 18_000, ..case(committed) };
        for vote in &mut case.votes {
            (vote.ballot, vote.answer) = (Some(Hash::ZERO), None);
        }
        case.jury = Some(Jury { round, from_view: 1, seats: Some(seats) });
        case
    }

    #[test]
    fn each_state_has_its_step() {
        let base = Situation {
            me: ME,
            now_ms: NOW,
            active_ms: NOW,
            serves: true,
            worthwhile: true,
            watches: true,
            result: None,
            promised: false,
            delivering: false,
        };
        let ran = Situation { result: Some(cid("right")), ..base.clone() };
        let promised = Situation { promised: true, ..ran.clone() };
        let open = order(OrderState::Submitted);
        let chosen = |state| Order { lane: Lane::Chosen { provider: ME }, ..order(state) };
        let accepted = OrderState::Accepted { deliver_by_ms: 20_000 };
        let agreed = Agreement { provider: ME, height: 1, weight: Amount::ZERO, reserved: Amount::ZERO };
        let rows: Vec<(&str, Order, Option<Case>, Situation, Step)> = vec![
            ("T-3: an open order is run", open.clone(), None, base.clone(), Step::Run),
            ("T-3: its result is promised", open.clone(), None, ran.clone(), Step::Commit),
            ("T-2: without a seed it waits", Order { seed: None, ..open.clone() }, None, base.clone(), Step::Nothing),
            (
                "the own order is left to others",
                Order { client: ME, ..open.clone() },
                None,
                base.clone(),
                Step::Nothing,
            ),
            (
                "an unknown model is left to others",
                open.clone(),
                None,
                Situation { serves: false, ..base.clone() },
                Step::Nothing,
            ),
            (
                "T-12: what does not pay is left",
                open.clone(),
                None,
                Situation { worthwhile: false, ..base.clone() },
                Step::Nothing,
            ),
            (
                "T-12: what was run is promised, whatever it pays by now",
                open.clone(),
                None,
                Situation { worthwhile: false, ..ran.clone() },
                Step::Commit,
            ),
            (
                "T-17: a cancelled order gets no promise",
                Order { cancelled: true, ..open.clone() },
                None,
                ran.clone(),
                Step::Nothing,
            ),
            (
                "T-3: a promise is revealed",
                Order { commitments: vec![commitment(ME)], ..open.clone() },
                None,
                promised.clone(),
                Step::Reveal,
            ),
            (
                "a promise without its salt is void",
                Order { commitments: vec![commitment(ME)], ..open.clone() },
                None,
                ran.clone(),
                Step::Nothing,
            ),
            (
                "T-17: after the deadline nothing starts",
                Order { deadline_ms: NOW, ..open.clone() },
                None,
                base.clone(),
                Step::Nothing,
            ),
            ("T-11: another's answer is re-run", solved(OTHER, "right"), None, base.clone(), Step::Run),
            (
                "T-11: though no agreement is wanted, if it is watched",
                solved(OTHER, "right"),
                None,
                Situation { worthwhile: false, ..base.clone() },
                Step::Run,
            ),
            (
                "T-12: though it is not watched, if an agreement pays",
                solved(OTHER, "right"),
                None,
                Situation { watches: false, ..base.clone() },
                Step::Run,
            ),
            (
                "T-11: and otherwise left",
                solved(OTHER, "right"),
                None,
                Situation { worthwhile: false, watches: false, ..base.clone() },
                Step::Nothing,
            ),
            (
                "T-11: a known wrong answer is contested, whatever that pays",
                solved(OTHER, "wrong"),
                None,
                Situation { worthwhile: false, watches: false, ..ran.clone() },
                Step::Contest,
            ),
            (
                "T-7: disputes are judged, whatever that pays",
                contested("wrong"),
                Some(case(&[OTHER])),
                Situation { worthwhile: false, watches: false, ..base.clone() },
                Step::Run,
            ),
            ("V-1: an equal answer is agreed with", solved(OTHER, "right"), None, ran.clone(), Step::Agree),
            (
                "V-1: only as many as are wanted",
                Order { agreements_wanted: 0, ..solved(OTHER, "right") },
                None,
                ran.clone(),
                Step::Nothing,
            ),
            (
                "V-1: nobody agrees twice",
                Order { agreements: vec![agreed], agreements_wanted: 2, ..solved(OTHER, "right") },
                None,
                ran.clone(),
                Step::Nothing,
            ),
            ("T-7: a different answer is contested", solved(OTHER, "wrong"), None, ran.clone(), Step::Contest),
            (
                "T-4: not after the window",
                Order { state: OrderState::Solved { claim_at_ms: NOW }, ..solved(OTHER, "wrong") },
                None,
                ran.clone(),
                Step::Nothing,
            ),
            ("the own answer stands by itself", solved(ME, "right"), None, ran.clone(), Step::Nothing),
            ("T-7: jurors run before they vote", contested("wrong"), Some(case(&[OTHER])), base.clone(), Step::Run),
            (
                "T-7: they vote against what differs",
                contested("wrong"),
                Some(case(&[OTHER])),
                ran.clone(),
                Step::Vote { refute: true },
            ),
            (
                "T-7: and for what is equal",
                contested("right"),
                Some(case(&[OTHER])),
                ran.clone(),
                Step::Vote { refute: false },
            ),
            ("T-18: nobody votes twice", contested("wrong"), Some(case(&[ME])), ran.clone(), Step::Nothing),
            (
                "T-7: not after the period",
                contested("wrong"),
                Some(Case { voting_ends_ms: NOW, ..case(&[]) }),
                ran.clone(),
                Step::Nothing,
            ),
            ("T-7: jurors run first", contested("wrong"), Some(jury_case(&[ME], &[], 0)), base.clone(), Step::Run),
            (
                "T-7: a juror commits to its result",
                contested("wrong"),
                Some(jury_case(&[ME], &[OTHER], 0)),
                ran.clone(),
                Step::VoteCommit,
            ),
            (
                "T-7: who was not drawn does not vote",
                contested("wrong"),
                Some(jury_case(&[OTHER], &[], 0)),
                ran.clone(),
                Step::Nothing,
            ),
            (
                "T-7: nor before the jury is drawn",
                contested("wrong"),
                Some(Case { jury: Some(Jury { round: 0, from_view: 1, seats: None }), ..case(&[]) }),
                ran.clone(),
                Step::Nothing,
            ),
            (
                "T-7: a committed vote waits for the opening",
                contested("wrong"),
                Some(jury_case(&[ME], &[ME], 0)),
                ran.clone(),
                Step::Nothing,
            ),
            (
                "T-7: and is opened then",
                contested("wrong"),
                Some(Case { voting_ends_ms: NOW, ..jury_case(&[ME], &[ME], 0) }),
                ran.clone(),
                Step::VoteOpen,
            ),
            (
                "T-7: not after it",
                contested("wrong"),
                Some(Case { voting_ends_ms: NOW, opening_ends_ms: NOW, ..jury_case(&[ME], &[ME], 0) }),
                ran.clone(),
                Step::Nothing,
            ),
            (
                "T-7: the contester commits again before the larger jury",
                contested("wrong"),
                Some(Case { contester: ME, ..jury_case(&[OTHER], &[], 1) }),
                ran.clone(),
                Step::VoteCommit,
            ),
            (
                "T-3: a promised right answer comes forward",
                Order { commitments: vec![commitment(ME)], ..contested("wrong") },
                Some(case(&[ME])),
                promised.clone(),
                Step::Reveal,
            ),
            (
                "T-3: not behind a right one",
                Order { commitments: vec![commitment(ME)], ..contested("right") },
                Some(case(&[ME])),
                promised.clone(),
                Step::Nothing,
            ),
            ("a chosen order waits for its client", chosen(OrderState::Submitted), None, base.clone(), Step::Nothing),
            (
                "M-5: an accepted one is finished after a restart",
                chosen(accepted.clone()),
                None,
                base.clone(),
                Step::Run,
            ),
            ("M-5: and delivered", chosen(accepted.clone()), None, ran.clone(), Step::Complete),
            (
                "M-5: not beside its delivery",
                chosen(accepted.clone()),
                None,
                Situation { delivering: true, ..base.clone() },
                Step::Nothing,
            ),
            (
                "another's chosen order is not delivered",
                Order { lane: Lane::Chosen { provider: OTHER }, ..order(accepted) },
                None,
                base.clone(),
                Step::Nothing,
            ),
            (
                "a finished order is finished",
                order(OrderState::Refunded { reason: RefundReason::Expired }),
                None,
                base,
                Step::Nothing,
            ),
        ];
        for (what, order, case, situation, step) in rows {
            assert_eq!(decide(&order, case.as_ref(), &situation), step, "{what}");
        }
    }
}
