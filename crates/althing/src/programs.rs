//! `program run`, `resume` and `show`: chains of orders in the hands of a person. (T-15)

use crate::{
    cli::{ProgramCommand, ProgramLimits, ProgramRun, Wallet},
    near::is_near,
    output::{self, spinner, table},
    roles::connect,
};
use althing_content::BlobStore;
use althing_program::{
    Answered, Attempt, FileJournal, Limits, Outcome, Parts, Program, Progress, Run, Runner, fetch_text,
};
use althing_sdk::{Content, LedgerClient as _, NearContent, Sender, StoreContent, SystemClock, WalletSigner};
use althing_types::{Address, Amount, Cid, OrderId, TxId};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Runs the command.
///
/// # Errors
/// What a person can act on.
pub async fn run(command: ProgramCommand, json: bool) -> Result<()> {
    match command {
        ProgramCommand::Run(args) => start(args, json).await,
        ProgramCommand::Resume { dir, limits, wallet } => resume(&dir, limits, &wallet, json).await,
        ProgramCommand::Show { dir } => show(&dir, json),
    }
}

fn read_program(path: &Path) -> Result<Program> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Program::parse(&text).with_context(|| path.display().to_string())
}

/// Where a run is kept if that is not said: here, named after its program.
fn default_dir(program: &Path) -> PathBuf {
    PathBuf::from(format!("{}.run", program.file_stem().unwrap_or_default().to_string_lossy()))
}

/// `NAME=VALUE`.
fn named(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').with_context(|| format!("{text:?} is not of the form NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

struct Connection {
    parts: Parts,
}

impl Connection {
    /// Everything that a run in `dir` needs; other processes are kept out of it.
    async fn open(dir: &Path, wallet: &Wallet) -> Result<Self> {
        let signer = Arc::new(WalletSigner::read(&wallet.wallet)?);
        let client = connect(&wallet.node.node).await?;
        let chain = client.status().await?.chain;
        let journal = Arc::new(FileJournal::open(dir)?);
        let content = StoreContent(Arc::new(BlobStore::open(dir.join("content"))?));
        let content: Arc<dyn Content> =
            if is_near(&wallet.node.node) { Arc::new(NearContent(content)) } else { Arc::new(content) };
        let clock = Arc::new(SystemClock);
        let sender = Arc::new(Sender::new(client.clone(), clock.clone(), signer, chain));
        Ok(Self { parts: Parts { client, clock, content, journal, sender } })
    }

    /// The answers of these orders, as one input: what others made can be used as it was published.
    async fn answers(&self, ids: &str) -> Result<String> {
        let mut texts = Vec::new();
        for id in ids.split(',') {
            let order: OrderId = id.trim().parse()?;
            let order = self.parts.client.order(order).await?;
            texts.push(fetch_text(&*self.parts.client, &*self.parts.content, &order).await?.trim().to_owned());
        }
        Ok(texts.join("\n\n"))
    }
}

async fn start(args: ProgramRun, json: bool) -> Result<()> {
    let mut program = read_program(&args.file)?;
    if let Some(budget) = args.budget {
        program.budget = budget;
    }
    let mut inputs = args.inputs.iter().map(|text| named(text)).collect::<Result<BTreeMap<_, _>>>()?;
    // What is wrong with the inputs is said before there is a run.
    let orders = args.orders.iter().map(|text| named(text)).collect::<Result<Vec<_>>>()?;
    let mut known = inputs.clone();
    known.extend(orders.iter().cloned());
    program.with_inputs(&known)?;
    let dir = args.dir.unwrap_or_else(|| default_dir(&args.file));
    if FileJournal::read(&dir)?.is_some() {
        bail!("{0} holds a run already: `althing program resume {0}` goes on with it", dir.display());
    }
    let connection = Connection::open(&dir, &args.wallet).await?;
    for (name, ids) in orders {
        inputs.insert(name, connection.answers(&ids).await?);
    }
    eprintln!("{}: at most {} ALTH; the run is kept in {}", program.title, program.budget, dir.display());
    eprintln!("note: questions and answers become public in the open lane");
    let runner = Runner::start(connection.parts, program, &inputs, args.parent).await?;
    carry_on(runner, &dir, json).await
}

async fn resume(dir: &Path, limits: ProgramLimits, wallet: &Wallet, json: bool) -> Result<()> {
    if FileJournal::read(dir)?.is_none() {
        bail!("{} holds no run", dir.display());
    }
    let connection = Connection::open(dir, wallet).await?;
    let limits = Limits { budget: limits.budget, attempts_max: limits.attempts };
    let runner = Runner::resume(connection.parts, limits).await?;
    carry_on(runner, dir, json).await
}

async fn carry_on(mut runner: Runner, dir: &Path, json: bool) -> Result<()> {
    let bar = spinner("running");
    let tell = |progress: Progress| match progress {
        Progress::Ordered { task, order, fee } => {
            bar.suspend(|| eprintln!("{task}: order {order}, {fee} ALTH"));
            bar.set_message(format!("{task} waits for an answer"));
        }
        Progress::ParentGone { task, parent } => {
            bar.suspend(|| eprintln!("{task}: its parent {parent} finished long ago, the ledger cannot name it"));
        }
        Progress::Refunded { task, reason, .. } => {
            let reason = format!("{reason:?}").to_lowercase();
            bar.suspend(|| eprintln!("{task}: {reason}, the fee came back"));
        }
        Progress::Answered { task, text, .. } if !json => {
            bar.suspend(|| println!("[{task}]\n{}\n", text.trim()));
        }
        Progress::Answered { task, .. } => bar.suspend(|| eprintln!("{task}: answered")),
    };
    let ended = runner.run(&tell).await;
    bar.finish_and_clear();
    let run = runner.record();
    if json {
        output::json(&report(run, ended.is_ok()))?;
    }
    let resume = || format!("stopped, and kept: `althing program resume {}` goes on", dir.display());
    ended.with_context(resume)?;
    eprintln!("done: {} ALTH of {} spent in {} orders", run.spent(), run.program.budget, placed(run));
    Ok(())
}

fn placed(run: &Run) -> usize {
    run.attempts.iter().filter(|attempt| attempt.placed.is_some()).count()
}

// ---- what was done ----

#[derive(Serialize)]
struct Report<'a> {
    title: &'a str,
    account: Address,
    /// Whether the program came to its end; absent where that was not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
    inputs: &'a BTreeMap<String, String>,
    budget: Amount,
    spent: Amount,
    orders: Vec<Line<'a>>,
}

/// One attempt.
#[derive(Serialize)]
struct Line<'a> {
    step: &'a str,
    part: u32,
    transaction: TxId,
    order: Option<OrderId>,
    parent: Option<OrderId>,
    height: Option<u64>,
    ordered_ms: Option<u64>,
    fee: Amount,
    base_fee: Amount,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

fn report(run: &Run, done: bool) -> Report<'_> {
    let orders = run.attempts.iter().map(line).collect();
    let (spent, budget) = (run.spent(), run.program.budget);
    Report {
        title: &run.program.title,
        account: run.account,
        done: Some(done),
        inputs: &run.inputs,
        budget,
        spent,
        orders,
    }
}

fn line(attempt: &Attempt) -> Line<'_> {
    Line {
        step: &attempt.task.step,
        part: attempt.task.part,
        transaction: attempt.tx_id,
        order: attempt.order(),
        parent: attempt.parent,
        height: attempt.placed.map(|placed| placed.height),
        ordered_ms: attempt.placed.map(|placed| placed.time_ms),
        fee: attempt.fee,
        base_fee: attempt.base_fee,
        outcome: &attempt.outcome,
    }
}

fn state(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Signed => "not certain yet".into(),
        Outcome::Lapsed => "in no block".into(),
        Outcome::Refused { reason } => format!("refused: {reason}"),
        Outcome::Ordered => "waiting".into(),
        Outcome::Refunded { reason } => format!("refunded: {reason:?}").to_lowercase(),
        Outcome::Answered(Answered { agreed_by, .. }) => format!("answered, {} agreed", agreed_by.len()),
        Outcome::Declined { code, .. } => format!("declined: {code}"),
    }
}

/// Prints the timeline of a run: times are of blocks, so anyone can look them up. (T-15)
fn show(dir: &Path, json: bool) -> Result<()> {
    let run = FileJournal::read(dir)?.with_context(|| format!("{} holds no run", dir.display()))?;
    if json {
        return output::json(&Report { done: None, ..report(&run, false) });
    }
    let row = |attempt: &Attempt| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let (output, answered): (Option<Cid>, Option<u64>) = match &attempt.outcome {
            Outcome::Answered(answered) => (Some(answered.output), Some(answered.time_ms)),
            _ => (None, None),
        };
        vec![
            or_dash(attempt.placed.map(|placed| placed.time_ms.to_string())),
            or_dash(answered.map(|time_ms| time_ms.to_string())),
            attempt.task.to_string(),
            state(&attempt.outcome),
            or_dash(attempt.order().map(|order| order.to_string())),
            or_dash(attempt.parent.map(|parent| parent.short())),
            or_dash(output.map(|cid| cid.to_string())),
        ]
    };
    table(
        &["ORDERED (MS)", "ANSWERED (MS)", "TASK", "STATE", "ORDER", "PARENT", "OUTPUT"],
        &run.attempts.iter().map(row).collect::<Vec<_>>(),
    );
    eprintln!("{}: {} ALTH of {} spent by {}", run.program.title, run.spent(), run.program.budget, run.account);
    Ok(())
}
