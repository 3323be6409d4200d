//! `althing proposal`, `althing votes`, `althing node protocol`: what governance does. (G-1, G-2)

use crate::{
    calls::{read_call, send},
    cli::NodeUrl,
    economy_cli::{ProposalCommand, ProposalCreateArgs, VotesCommand},
    market::pool_id,
    output::{self, table},
    roles::connect,
    shares::model_id,
    units::{pair, percent_to_ppm, ppm_to_percent, until},
};
use althing_sdk::{EconomyClient, LedgerClient as _};
use althing_types::{
    Address, Amount, Call, ModelReward, ParamChange, Proposal, ProposalState,
    api::{ProposalSummary, ProposalView, Protocol},
    params::{PARAMS, Unit},
};
use anyhow::{Context as _, Result, bail};
use std::path::Path;

/// Runs `althing proposal …`.
///
/// # Errors
/// What a person can act on.
pub async fn proposal(command: ProposalCommand, json: bool) -> Result<()> {
    let (wallet, call) = match command {
        ProposalCommand::List { node } => {
            let found = connect(&node.node).await?.proposals().await?;
            return output::data(json, &*found, list);
        }
        ProposalCommand::Show { proposal, voter, node } => {
            let client = connect(&node.node).await?;
            if let Some(voter) = voter {
                let vote = client.proposal_vote(proposal, voter).await?;
                return output::data(json, &vote, |vote| println!("{:?} with {}", vote.choice, vote.weight));
            }
            let view = client.proposal(proposal).await?;
            let now_ms = client.status().await?.time_ms;
            return output::data(json, &view, |view| show(view, now_ms));
        }
        ProposalCommand::Create(args) => return create(*args, json).await,
        ProposalCommand::Vote { proposal, choice, wallet } => {
            (wallet, Call::ProposalVote { proposal, choice: choice.into() })
        }
        ProposalCommand::Queue { proposal, wallet } => (wallet, Call::ProposalQueue { proposal }),
        ProposalCommand::Execute { proposal, wallet } => (wallet, Call::ProposalExecute { proposal }),
        ProposalCommand::Cancel { proposal, wallet } => (wallet, Call::ProposalCancel { proposal }),
    };
    send(&wallet, json, |_| call).await.map(drop)
}

fn list(proposals: &[ProposalSummary]) {
    let row = |summary: &ProposalSummary| {
        let Proposal { id, votes_for, votes_against, votes_abstain, .. } = &summary.proposal;
        let votes = [votes_for, votes_against, votes_abstain].map(|votes| votes.to_string());
        let [votes_for, votes_against, votes_abstain] = votes;
        let state = summary.state.name().to_owned();
        vec![id.to_string(), state, votes_for, votes_against, votes_abstain, summary.title.clone()]
    };
    let rows: Vec<_> = proposals.iter().map(row).collect();
    table(&["PROPOSAL", "STATE", "FOR", "AGAINST", "ABSTAIN", "TITLE"], &rows);
}

fn show(view: &ProposalView, now_ms: u64) {
    let proposal = &view.proposal;
    println!("proposal  {}: {}", proposal.id, view.text.title);
    println!("by        {}", proposal.proposer);
    println!("state     {}{}", view.state.name(), next_step(view, now_ms));
    println!(
        "votes     {} for, {} against, {} abstain; {} of for and abstain needed",
        proposal.votes_for, proposal.votes_against, proposal.votes_abstain, proposal.terms.quorum
    );
    println!("power     as it was at the end of block {}", proposal.snapshot_height);
    for (index, call) in view.text.calls.iter().enumerate() {
        println!("call {index}    {}", call.summary());
    }
    if !view.text.description.is_empty() {
        println!("\n{}", view.text.description);
    }
}

/// What comes next and when.
fn next_step(view: &ProposalView, now_ms: u64) -> String {
    let proposal = &view.proposal;
    let time = |time_ms| until(time_ms, now_ms);
    match view.state {
        ProposalState::Pending => format!(": the vote begins {}", time(proposal.voting_starts_ms)),
        ProposalState::Active => format!(": the vote ends {}", time(proposal.voting_ends_ms)),
        ProposalState::Succeeded => format!(": expires {} if nobody queues it", time(proposal.expires_ms())),
        ProposalState::Queued => match proposal.executable_ms {
            Some(from_ms) if from_ms > now_ms => format!(": can be executed {}", time(from_ms)),
            _ => format!(": expires {} if nobody executes it", time(proposal.expires_ms())),
        },
        ProposalState::Cancelled | ProposalState::Defeated | ProposalState::Executed | ProposalState::Expired => {
            String::new()
        }
    }
}

// ---- proposing ----

async fn create(args: ProposalCreateArgs, json: bool) -> Result<()> {
    let client = connect(&args.wallet.node.node).await?;
    let calls = proposed_calls(&*client, &args).await?;
    if calls.is_empty() {
        bail!("a proposal has at least one call: --set, --reward, --pay, --drip, --upgrade, --calls or --call");
    }
    for call in &calls {
        eprintln!("proposes: {}", call.summary());
    }
    let ProposalCreateArgs { title, description, wallet, .. } = args;
    let mut proposer = Address::ZERO;
    let included = send(&wallet, json, |account| {
        proposer = account;
        Call::ProposalCreate { title, description, calls }
    })
    .await?;
    if json {
        return Ok(());
    }
    // One account has one proposal at a time, so its block tells which it is.
    let made = |summary: &&ProposalSummary| {
        summary.proposal.proposer == proposer && summary.proposal.created_height == included.height
    };
    if let Some(summary) = client.proposals().await?.iter().find(made) {
        println!("{}", summary.proposal.id);
    }
    Ok(())
}

/// The calls that the options name, in the order that the help says.
async fn proposed_calls(client: &dyn EconomyClient, args: &ProposalCreateArgs) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    if !args.set.is_empty() {
        let changes = args.set.iter().map(|text| param_change(text)).collect::<Result<_>>()?;
        calls.push(Call::ParamsSet { changes });
    }
    for text in &args.reward {
        let (model, terms) = pair(text, "MODEL=RATE_PERCENT:UNIT_BYTES, or MODEL=none")?;
        let reward = model_reward(terms)?;
        calls.push(Call::ModelRewardSet { model: model_id(client, model).await?, reward });
    }
    for text in &args.pay {
        let (to, amount) = pair(text, "ADDRESS=AMOUNT")?;
        calls.push(Call::Transfer { to: to.parse()?, amount: amount.parse()? });
    }
    for text in &args.drip {
        let (pool, weight) = pair(text, "POOL=WEIGHT")?;
        let weight = weight.parse().with_context(|| format!("{weight:?} is no weight, such as 1"))?;
        calls.push(Call::PoolDripSet { pool: pool_id(pool)?, weight });
    }
    if let Some(text) = &args.upgrade {
        calls.push(upgrade(text)?);
    }
    if let Some(file) = &args.calls {
        calls.extend(read_calls(file)?);
    }
    for text in &args.call {
        calls.push(read_call(text)?);
    }
    Ok(calls)
}

/// `NAME=VALUE` as profiles write it: amounts in tokens, flags as words. (G-1)
fn param_change(text: &str) -> Result<ParamChange> {
    let (name, value) = pair(text, "NAME=VALUE, such as bond_min=100")?;
    let info = PARAMS.iter().find(|info| info.name == name);
    let info = info.with_context(|| format!("there is no parameter {name:?}: `althing profile show` lists them"))?;
    let number = match (info.unit, value) {
        (Unit::Amount, tokens) => tokens.parse::<Amount>()?.0,
        (Unit::Flag, "true") => 1,
        (Unit::Flag, "false") => 0,
        (_, number) => number.parse().with_context(|| format!("{name}: {number:?} is not a whole number"))?,
    };
    if number < info.min || number > info.max {
        bail!("{name} lies between {} and {} in its smallest unit, not at {number}", info.min, info.max);
    }
    Ok(ParamChange { name: name.into(), value: number })
}

/// `RATE_PERCENT:UNIT_BYTES`, or `none`. (T-6)
fn model_reward(terms: &str) -> Result<Option<ModelReward>> {
    if terms == "none" {
        return Ok(None);
    }
    let form = || format!("{terms:?}: write RATE_PERCENT:UNIT_BYTES, such as 100:1000, or none");
    let (rate, unit_bytes) = terms.split_once(':').with_context(form)?;
    let rate = percent_to_ppm(rate.parse().with_context(form)?)?;
    Ok(Some(ModelReward { rate, unit_bytes: unit_bytes.parse().with_context(form)? }))
}

/// `VERSION@HEIGHT`. (G-2)
fn upgrade(text: &str) -> Result<Call> {
    let form = || format!("{text:?}: write VERSION@HEIGHT, such as 2@500000");
    let (version, height) = text.split_once('@').with_context(form)?;
    let (version, height) = (version.parse().with_context(form)?, height.parse().with_context(form)?);
    Ok(Call::UpgradeSchedule { version, height })
}

/// A file of calls.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct CallsFile {
    calls: Vec<Call>,
}

fn read_calls(file: &Path) -> Result<Vec<Call>> {
    let name = || format!("the calls in {}", file.display());
    let text = std::fs::read_to_string(file).with_context(name)?;
    if file.extension().is_some_and(|extension| extension == "toml") {
        return Ok(toml::from_str::<CallsFile>(&text).with_context(name)?.calls);
    }
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text).with_context(name);
    }
    Ok(serde_json::from_str::<CallsFile>(&text).with_context(name)?.calls)
}

// ---- votes and versions ----

/// Runs `althing votes …`.
///
/// # Errors
/// What a person can act on.
pub async fn votes(command: VotesCommand, json: bool) -> Result<()> {
    match command {
        VotesCommand::Delegate { to, wallet } => send(&wallet, json, |_| Call::VotesDelegate { to }).await.map(drop),
        VotesCommand::Show { address, node } => {
            let power = connect(&node.node).await?.power(address).await?;
            if json {
                return output::json(&power);
            }
            let share = power.power.mul_div_floor(1_000_000, power.votable.0).unwrap_or_default();
            let share = ppm_to_percent(u32::try_from(share.0).unwrap_or(u32::MAX));
            println!("power     {}, {share} % of {} votable", power.power, power.votable);
            println!("own       {}", power.own);
            println!("received  {}", power.received);
            if let Some(delegate) = power.delegate {
                println!("delegate  {delegate} votes with its own units");
            }
            Ok(())
        }
    }
}

/// `althing node protocol`. (G-2)
///
/// # Errors
/// If no node answers.
pub async fn protocol(node: &NodeUrl, json: bool) -> Result<()> {
    let protocol = connect(&node.node).await?.protocol().await?;
    if json {
        return output::json(&protocol);
    }
    let Protocol { version, supported, scheduled } = protocol;
    println!("in force   version {version}");
    println!("supported  up to version {supported} by this node's program");
    match scheduled {
        None => println!("scheduled  nothing"),
        Some(upgrade) => println!("scheduled  version {} at height {}", upgrade.version, upgrade.height),
    }
    if let Some(upgrade) = scheduled.filter(|upgrade| upgrade.version > supported) {
        eprintln!("note: this node stops before height {}: install the new program in time", upgrade.height);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_written_as_in_profiles() {
        // G-1
        let number = |text: &str| param_change(text).map(|change| change.value);
        assert_eq!(number("bond_min=1.5").unwrap(), 3 * Amount::TOKEN.0 / 2);
        assert_eq!(number("votes_committed=true").unwrap(), 1);
        assert_eq!((number("slash=125000").unwrap(), number("jail_ms=7").unwrap()), (125_000, 7));
        for (wrong, reason) in [
            ("bond_min", "write NAME=VALUE"),
            ("colour=1", "no parameter"),
            ("slash=2000000", "lies between"),
            ("slash=half", "whole number"),
        ] {
            let error = format!("{:#}", number(wrong).unwrap_err());
            assert!(error.contains(reason), "{wrong}: {error}");
        }
    }

    #[test]
    fn rewards_and_upgrades_are_read() {
        // T-6, G-2
        assert_eq!(model_reward("none").unwrap(), None);
        assert_eq!(model_reward("150:1000").unwrap(), Some(ModelReward { rate: 1_500_000, unit_bytes: 1_000 }));
        assert_eq!(upgrade("2@9").unwrap(), Call::UpgradeSchedule { version: 2, height: 9 });
        assert!(model_reward("150").is_err() && upgrade("2").is_err());
    }

    #[test]
    fn calls_are_read_from_json_and_toml() {
        let directory = tempfile::tempdir().unwrap();
        let (list, expected) = (r#"[{"call":"upgrade_cancel"}]"#, [Call::UpgradeCancel]);
        for (name, text) in [
            ("a.json", list.to_owned()),
            ("b.json", format!(r#"{{"calls":{list}}}"#)),
            ("c.toml", "[[calls]]\ncall = \"upgrade_cancel\"\n".into()),
        ] {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_calls(&file).unwrap(), expected, "{name}");
        }
        assert!(read_calls(&directory.path().join("absent.json")).is_err());
    }
}
