//! `althing order submit`: an order in the open lane, on a question or on any bytes, in it or elsewhere.

use crate::{
    calls::send,
    cli::Wallet,
    content::StoreArgs,
    roles::{connect, content_url_of},
};
use althing_content::{Cid, Client, Profile, put_bytes};
use althing_runtime::ChatInput;
use althing_sdk::{Clock as _, LedgerClient as _, SystemClock};
use althing_types::{
    Amount, Call, ContentSource, Input, Lane, OrderId,
    call::{OrderBudget, OrderSubmit},
    object::{CONTENT_INPUT_BYTES_MAX, INLINE_INPUT_BYTES_MAX},
};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a source is asked whether it has the input, which is only to warn.
const LOOK_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[group(id = "input_kind", required = true, multiple = false, args = ["question", "input", "input_cid"])]
pub struct SubmitArgs {
    /// Name of a model.
    model: String,
    /// A question for a chat model.
    question: Option<String>,
    /// The input, as the bytes of a file, for a model of any interface; `-` for stdin.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The CID of an input that others have.
    #[arg(long, value_name = "CID", requires = "input_bytes")]
    input_cid: Option<Cid>,
    /// The size of that input.
    #[arg(long, value_name = "N", requires = "input_cid")]
    input_bytes: Option<u64>,
    /// Base URL where the input can be had: it travels by its CID, as inputs of more than 4096 bytes must, and providers
    /// fetch it there. The URL becomes public with the order. [default: with --home, where that role serves its content]
    #[arg(long, value_name = "URL")]
    source: Option<ContentSource>,
    #[command(flatten)]
    store: StoreArgs,
    /// What you offer beside the model's own fee, in tokens.
    #[arg(long, default_value = "0.01")]
    fee: Amount,
    /// Agreements by other providers that you ask and pay for.
    #[arg(long, default_value_t = 1)]
    agreements: u8,
    /// Seconds that providers have for it.
    #[arg(long, default_value_t = 60)]
    within_s: u64,
    /// A sampling seed, for an answer that can be had again.
    #[arg(long)]
    seed: Option<u64>,
    /// The order that this one came from; its chain's budget pays if you set one aside.
    #[arg(long, value_name = "ORDER")]
    parent: Option<OrderId>,
    /// Tokens to set aside for orders that follow from this one: they are paid out of it, and never
    /// cost more. `order budget-close` takes back what is left.
    #[arg(long, value_name = "TOKENS", conflicts_with = "parent")]
    budget: Option<Amount>,
    /// Seconds after which the rest of the budget comes back by itself.
    #[arg(long, default_value_t = 3_600, requires = "budget")]
    budget_for_s: u64,
    #[command(flatten)]
    wallet: Wallet,
}

/// Runs the command.
///
/// # Errors
/// What a person can act on.
pub async fn run(args: SubmitArgs, json: bool) -> Result<()> {
    eprintln!("note: question and answer become public in the open lane");
    let input = args.input().await?;
    let model = connect(&args.wallet.node.node).await?.model(&args.model).await?;
    let fee = Amount(model.fee.0.saturating_add(args.fee.0));
    let after = |seconds: u64| SystemClock.now_ms().saturating_add(seconds.saturating_mul(1_000));
    let budget = args.budget.map(|amount| OrderBudget { amount, until_ms: after(args.budget_for_s) });
    let call = Call::OrderSubmit(OrderSubmit {
        model: model.id,
        input,
        fee,
        max_total: fee,
        lane: Lane::Open,
        deadline_ms: after(args.within_s),
        seed: args.seed,
        agreements: args.agreements,
        parent: args.parent,
        budget,
    });
    let included = send(&args.wallet, json, |_| call).await?;
    if let (false, Some(order)) = (json, included.receipt.order) {
        println!("{order}");
    }
    Ok(())
}

impl SubmitArgs {
    /// What the model is to run on; puts it into the store if it travels by its CID.
    async fn input(&self) -> Result<Input> {
        if let (Some(cid), Some(size)) = (self.input_cid, self.input_bytes) {
            check_size(size)?;
            return self.elsewhere(cid, size, self.source.clone()).await;
        }
        let bytes = match (&self.question, &self.input) {
            (Some(question), _) => ChatInput::ask(question).to_bytes(),
            (None, Some(path)) => read(path)?,
            (None, None) => bail!("there is nothing to run on: give a question, --input or --input-cid"),
        };
        if bytes.len() <= INLINE_INPUT_BYTES_MAX && self.source.is_none() {
            return Ok(Input::Inline { bytes });
        }
        let size = bytes.len() as u64;
        check_size(size)?;
        let source = match (&self.source, self.store.home()) {
            (Some(source), _) => source.clone(),
            (None, Some(home)) => content_url_of(home)?,
            (None, None) => bail!(
                "the input has {size} bytes, and {INLINE_INPUT_BYTES_MAX} fit into an order: name the gateway or \
                 provider that is to serve it with --home, or where your store is served with --source"
            ),
        };
        let store = self.store.open()?;
        let cid = put_bytes(&*store, Profile::V1_2025, &bytes).context("cannot keep the input")?.cid;
        eprintln!("note: the input is {cid}, in {}", self.store.shown()?);
        self.elsewhere(cid, size, Some(source)).await
    }

    /// An input by its CID; says what becomes public, and whether it can be had.
    async fn elsewhere(&self, cid: Cid, size: u64, source: Option<ContentSource>) -> Result<Input> {
        if let Some(source) = &source {
            source.check()?;
            eprintln!("note: {source} becomes public with the order");
            let client = Client::new(source.as_str())?;
            match tokio::time::timeout(LOOK_WAIT, client.block(&cid)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => eprintln!("note: it cannot be had there now: {error}"),
                Err(_) => eprintln!("note: it cannot be had there now: no answer within {} s", LOOK_WAIT.as_secs()),
            }
        }
        Ok(Input::Content { cid, size, source })
    }
}

fn check_size(size: u64) -> Result<()> {
    ensure!(
        size <= CONTENT_INPUT_BYTES_MAX,
        "the input has {size} bytes, and nobody runs on more than {CONTENT_INPUT_BYTES_MAX}"
    );
    Ok(())
}

/// The bytes of a file, or of stdin; a byte more than anybody runs on is enough to know.
fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let limit = CONTENT_INPUT_BYTES_MAX + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).with_context(failed)?.take(limit).read_to_end(&mut bytes)
    };
    read.with_context(failed)?;
    Ok(bytes)
}
