//! From a run to its next action, as a pure function: a run that is resumed does what it would have
//! done. (T-15)

use crate::{
    file::{FanOut, NO_PARENT, Repeat, Step},
    record::{Attempt, Outcome, Run, Task},
    template::{Source, Template},
};
use althing_runtime::{ChatInput, ChatMessage, Role};
use althing_types::{Amount, LedgerError, OrderId};

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Find out what became of this attempt's transaction, handing it in as often as needed. Nothing
    /// else is signed before: at most one transaction of a run is ever uncertain.
    Settle(usize),
    /// Sign an order.
    Ask(Asking),
    /// Wait until one of these attempts' orders is answered or over, or until it is time to ask again.
    Wait { attempts: Vec<usize>, until_ms: Option<u64> },
    /// Every step has its answers.
    Done,
}

/// A question that is to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    pub task: Task,
    pub model: String,
    pub input: ChatInput,
    /// Offered beside the model's own fee.
    pub fee: Amount,
    pub seed: Option<u64>,
    pub parent: Option<OrderId>,
}

/// Why a program cannot go on by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    #[error("task {task} was asked {attempts} times in vain; the fees were refunded")]
    GivenUp { task: Task, attempts: u32 },
    #[error("the model declines task {task}: {message} ({code})")]
    Declined { task: Task, code: String, message: String },
}

/// What one step needs.
enum Need {
    Ask(Asking),
    Until(u64),
    Nothing,
}

/// The next action. Steps whose values are there are asked in the order of the file, before any of
/// their answers is waited for.
///
/// # Errors
/// [`Stuck`] if a task has no attempts left, or no answer.
pub fn next(run: &Run, now_ms: u64) -> Result<Next, Stuck> {
    if let Some(index) = run.attempts.iter().position(|attempt| attempt.outcome == Outcome::Signed) {
        return Ok(Next::Settle(index));
    }
    let mut until_ms: Option<u64> = None;
    for step in &run.program.steps {
        match need(run, step, now_ms)? {
            Need::Ask(asking) => return Ok(Next::Ask(asking)),
            Need::Until(at_ms) => until_ms = Some(until_ms.map_or(at_ms, |until_ms| until_ms.min(at_ms))),
            Need::Nothing => {}
        }
    }
    let waiting = |(index, attempt): (usize, &Attempt)| (attempt.outcome == Outcome::Ordered).then_some(index);
    let attempts: Vec<_> = run.attempts.iter().enumerate().filter_map(waiting).collect();
    if attempts.is_empty() && until_ms.is_none() {
        return Ok(Next::Done);
    }
    Ok(Next::Wait { attempts, until_ms })
}

fn need(run: &Run, step: &Step, now_ms: u64) -> Result<Need, Stuck> {
    if !step.uses().into_iter().filter_map(|name| run.program.step(name)).all(|used| is_complete(run, used)) {
        return Ok(Need::Nothing);
    }
    match (&step.fan_out, &step.repeat) {
        (Some(fan_out), _) => need_items(run, step, fan_out),
        (None, Some(repeat)) => need_round(run, step, repeat, now_ms),
        (None, None) => need_part(run, step, 0, &|_| None),
    }
}

/// Whether the step has all its answers. A step has none before the steps that it uses have theirs.
pub fn is_complete(run: &Run, step: &Step) -> bool {
    if !step.uses().into_iter().filter_map(|name| run.program.step(name)).all(|used| is_complete(run, used)) {
        return false;
    }
    match (&step.fan_out, &step.repeat) {
        (Some(fan_out), _) => (0u32..).zip(items(run, fan_out)).all(|(part, _)| run.answered(step, part).is_some()),
        (None, Some(repeat)) => rounds_done(run, step, repeat).1,
        (None, None) => run.answered(step, 0).is_some(),
    }
}

fn items(run: &Run, fan_out: &FanOut) -> Vec<String> {
    let text = render(run, &fan_out.over, &|_| None);
    let mut items = fan_out.split.items(&text);
    items.truncate(usize::try_from(fan_out.max).unwrap_or(usize::MAX));
    items
}

fn need_items(run: &Run, step: &Step, fan_out: &FanOut) -> Result<Need, Stuck> {
    for (part, item) in (0u32..).zip(items(run, fan_out)) {
        let own = |source: &Source| match source {
            Source::Item => Some(item.clone()),
            Source::Index => Some((part + 1).to_string()),
            _ => None,
        };
        match need_part(run, step, part, &own)? {
            Need::Nothing => {}
            need => return Ok(need),
        }
    }
    Ok(Need::Nothing)
}

/// How many rounds are answered, and whether the last one ends the repetition.
fn rounds_done(run: &Run, step: &Step, repeat: &Repeat) -> (u32, bool) {
    let mut rounds = 0;
    while let Some((_, answered)) = run.answered(step, rounds) {
        rounds += 1;
        if rounds >= repeat.max || repeat.ends_with(&answered.text) {
            return (rounds, true);
        }
    }
    (rounds, false)
}

fn need_round(run: &Run, step: &Step, repeat: &Repeat, now_ms: u64) -> Result<Need, Stuck> {
    let (round, ended) = rounds_done(run, step, repeat);
    if ended {
        return Ok(Need::Nothing);
    }
    let before = round.checked_sub(1).and_then(|before| run.answered(step, before));
    // The time of the order before is the ledger's, so that a crash does not move the next one.
    let due_ms = before
        .and_then(|(attempt, _)| attempt.placed)
        .map_or(0, |placed| placed.time_ms.saturating_add(repeat.every_s.saturating_mul(1_000)));
    if repeat.every_s > 0 && now_ms < due_ms && run.attempts_of(&task(step, round)).next().is_none() {
        return Ok(Need::Until(due_ms));
    }
    let last = match (before, &repeat.start) {
        (Some((_, answered)), _) => answered.text.trim().to_owned(),
        (None, Some(start)) => render(run, start, &|_| None),
        (None, None) => String::new(),
    };
    let own = |source: &Source| match source {
        Source::Last => Some(last.clone()),
        Source::Round => Some((round + 1).to_string()),
        _ => None,
    };
    need_part(run, step, round, &own)
}

fn task(step: &Step, part: u32) -> Task {
    Task { step: step.name.clone(), part }
}

/// Values that only the step itself knows.
type Own<'a> = &'a dyn Fn(&Source) -> Option<String>;

fn render(run: &Run, template: &Template, own: Own<'_>) -> String {
    template.render(|source| match source {
        Source::Input(name) => run.inputs.get(name).cloned(),
        Source::Step(name) => run.program.step(name).map(|step| run.text(step)),
        source => own(source),
    })
}

/// Asks for a part unless an attempt for it is under way or answered.
fn need_part(run: &Run, step: &Step, part: u32, own: Own<'_>) -> Result<Need, Stuck> {
    let task = task(step, part);
    let mut refunded = 0;
    for attempt in run.attempts_of(&task) {
        match &attempt.outcome {
            Outcome::Declined { code, message } => {
                let (code, message) = (code.clone(), message.clone());
                return Err(Stuck::Declined { task: task.clone(), code, message });
            }
            Outcome::Refunded { .. } => refunded += 1,
            _ if attempt.is_live() => return Ok(Need::Nothing),
            _ => {}
        }
    }
    if refunded >= run.program.attempts_max {
        return Err(Stuck::GivenUp { task, attempts: refunded });
    }
    Ok(Need::Ask(Asking {
        model: step.model.clone().unwrap_or_else(|| run.program.model.clone()),
        input: input(run, step, own),
        fee: step.fee(&run.program),
        seed: step.seed,
        parent: parent(run, step, &task),
        task,
    }))
}

fn input(run: &Run, step: &Step, own: Own<'_>) -> ChatInput {
    let message = |role, template| ChatMessage { role, content: render(run, template, own) };
    let system = step.system.as_ref().map(|system| message(Role::System, system));
    ChatInput {
        messages: system.into_iter().chain([message(Role::User, &step.prompt)]).collect(),
        max_tokens: step.max_tokens,
        temperature: step.temperature,
        top_p: step.top_p,
        stop: step.stop.clone(),
    }
}

/// The order that this one comes from: the round before, or the last order of the parent step. An order
/// that finished long ago is not in the ledger's state any more and cannot be named. (T-15)
fn parent(run: &Run, step: &Step, task: &Task) -> Option<OrderId> {
    let round_before = task.part.checked_sub(1).filter(|_| step.repeat.is_some());
    let parent = match (round_before, run.program.parent_of(step)) {
        (Some(before), _) => run.answered(step, before).and_then(|(attempt, _)| attempt.order()),
        (None, Some(parent)) => run.answers(parent).last().and_then(|(attempt, _)| attempt.order()),
        (None, None) if step.parent.as_deref() == Some(NO_PARENT) => None,
        (None, None) => run.parent,
    };
    let gone = |id: &OrderId| {
        run.attempts_of(task).any(|attempt| {
            matches!(&attempt.outcome, Outcome::Refused { reason: LedgerError::UnknownOrder(unknown) } if unknown == id)
        })
    };
    parent.filter(|id| !gone(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        file::Program,
        record::{Answered, Placed},
    };
    use althing_types::{Address, ChainId, RefundReason, TxId};

    const PROGRAM: &str = r#"
        title = "a test"
        model = "m"
        budget = "1"
        attempts_max = 2
        inputs = { heroes = "fox, owl" }
        [[step]]
        name = "plan"
        prompt = "{{input.heroes}}"
        [[step]]
        name = "scene"
        prompt = "{{index}} {{item}} {{plan.text | words 1}}"
        fan_out = { over = "{{input.heroes}}", split = "commas", max = 3 }
        parent = "plan"
        [[step]]
        name = "short"
        prompt = "{{round}} {{last}}"
        repeat = { max = 3, start = "{{scene.text}}", until_words_max = 2, every_s = 10 }
    "#;

    fn run() -> Run {
        Run {
            version: 1,
            chain: ChainId::ZERO,
            account: Address::ZERO,
            inputs: [("heroes".into(), "fox, owl".into())].into(),
            program: Program::parse(PROGRAM).unwrap(),
            parent: None,
            started_ms: 0,
            attempts: Vec::new(),
        }
    }

    /// Asks what is to be asked, with the next number as the order's id.
    fn ask(run: &mut Run, now_ms: u64) -> String {
        let Next::Ask(asking) = next(run, now_ms).unwrap() else { panic!("{:?}", next(run, now_ms)) };
        let order = OrderId([u8::try_from(run.attempts.len()).unwrap() + 1; 32]);
        let parent = asking.parent.map_or(0, |parent| parent.0[0]);
        run.attempts.push(Attempt {
            task: asking.task.clone(),
            tx: Vec::new(),
            tx_id: TxId::ZERO,
            signed_ms: 0,
            fee: Amount(100),
            base_fee: Amount(1),
            parent: asking.parent,
            deadline_ms: 0,
            placed: Some(Placed { order, height: 1, time_ms: now_ms }),
            outcome: Outcome::Ordered,
        });
        format!("{} <{parent}> {}", asking.task, asking.input.messages[0].content)
    }

    fn answer(run: &mut Run, index: usize, text: &str) {
        let output = althing_content::file_cid(text.as_bytes());
        run.attempts[index].outcome = Outcome::Answered(Answered {
            text: text.into(),
            output,
            provider: Address::ZERO,
            agreed_by: Vec::new(),
            time_ms: 0,
        });
    }

    #[test]
    fn steps_are_asked_when_their_values_are_there_and_name_where_they_came_from() {
        // T-15
        let run = &mut run();
        assert_eq!(ask(run, 0), "plan/1 <0> fox, owl");
        assert_eq!(next(run, 0), Ok(Next::Wait { attempts: vec![0], until_ms: None }));
        answer(run, 0, "Once upon a time");
        assert_eq!(ask(run, 0), "scene/1 <1> 1 fox Once");
        assert_eq!(ask(run, 0), "scene/2 <1> 2 owl Once");
        answer(run, 2, "An owl.");
        assert_eq!(next(run, 0), Ok(Next::Wait { attempts: vec![1], until_ms: None }));
        answer(run, 1, "A fox.");
        assert_eq!(ask(run, 1_000), "short/1 <3> 1 A fox.\n\nAn owl.", "items in their order, whoever was first");
        answer(run, 3, "Too many words");
        let pause = Next::Wait { attempts: vec![], until_ms: Some(11_000) };
        assert_eq!(next(run, 10_999), Ok(pause), "not before its time");
        assert_eq!(ask(run, 11_000), "short/2 <4> 2 Too many words");
        answer(run, 4, "Two words");
        assert_eq!(next(run, 11_000), Ok(Next::Done), "the condition ends it before the last round");
    }

    #[test]
    fn nothing_is_signed_while_a_transaction_is_uncertain() {
        // T-15
        let run = &mut run();
        ask(run, 0);
        answer(run, 0, "x");
        ask(run, 0);
        run.attempts[1].outcome = Outcome::Signed;
        assert_eq!(next(run, 0), Ok(Next::Settle(1)));
        run.attempts[1].outcome = Outcome::Lapsed;
        assert!(matches!(next(run, 0), Ok(Next::Ask(asking)) if asking.task.part == 0), "the same item again");
    }

    #[test]
    fn refunds_give_the_budget_back_and_are_bounded() {
        // T-15
        let run = &mut run();
        ask(run, 0);
        assert_eq!(run.spent(), Amount(101));
        run.attempts[0].outcome = Outcome::Refunded { reason: RefundReason::Refuted };
        assert_eq!(run.spent(), Amount(1), "the base fee is gone");
        ask(run, 0);
        run.attempts[1].outcome = Outcome::Lapsed;
        assert_eq!(run.spent(), Amount(1), "what is in no block costs nothing and is no attempt");
        ask(run, 0);
        run.attempts[2].outcome = Outcome::Refunded { reason: RefundReason::Expired };
        let task = Task { step: "plan".into(), part: 0 };
        assert_eq!(next(run, 0), Err(Stuck::GivenUp { task, attempts: 2 }));
    }

    #[test]
    fn a_parent_that_left_the_state_is_not_named_again() {
        // T-15
        let run = &mut run();
        ask(run, 0);
        answer(run, 0, "x");
        ask(run, 0);
        run.attempts[1].outcome = Outcome::Refused { reason: LedgerError::UnknownOrder(OrderId([1; 32])) };
        assert_eq!(ask(run, 0), "scene/1 <0> 1 fox x");
        run.attempts[2].outcome = Outcome::Declined { code: "c".into(), message: "m".into() };
        assert!(matches!(next(run, 0), Err(Stuck::Declined { .. })), "asking again is no use");
    }
}
