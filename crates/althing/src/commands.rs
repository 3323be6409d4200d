//! Every command but `dev` and `bench`.

use crate::{
    bench, bench_calls,
    calls::{self, send},
    cli::{
        AskArgs, BenchCommand, Cli, Command, DisputeCommand, GatewayArgs, InitArgs, KeyCommand, ModelCommand, NodeArgs,
        NodeCommand, NodeUrl, OrderCommand, ProviderArgs, ProviderCommand, TransferArgs, VerifyArgs, VoteAnswer,
        Wallet,
    },
    content, dev, economics, governing,
    home::{CoordinatorHome, Home, Plan},
    local, market,
    output::{self, spinner, table},
    packages, programs,
    roles::{self, bind, connect},
    shares, shipped, staking, submit, upstreams,
};
use althing_content::BlobStore;
use althing_gateway::{ApiKey, ApiKeys, Level};
use althing_node::receipt;
use althing_provider::{ProviderStatus, ServingStatus, policy};
use althing_runtime::Package;
use althing_sdk::{
    Ballot, Clock as _, LedgerClient, OrderFilter, SessionKeyPair, Signer as _, SystemClock, WalletSigner,
};
use althing_types::{Amount, BallotAnswer, Call, Hash, Order, OrderId, OrderState, api::Status, call::Scope};
use anyhow::{Context as _, Result, anyhow, bail};
use std::{path::Path, sync::Arc, time::Duration};

const DAY_MS: u64 = 86_400_000;

/// Runs a command.
///
/// # Errors
/// What a person can act on.
pub async fn run(cli: Cli) -> Result<()> {
    let json = cli.json;
    match cli.command {
        Command::Dev(args) => dev::run(args, json).await,
        Command::Init(args) => init(args, json),
        Command::Node(args) => node(args, json).await,
        Command::Provider(args) => provider(args, json).await,
        Command::Gateway(args) => gateway(args, json).await,
        Command::Ask(args) => ask(args, json).await,
        Command::Key(command) => key(command, json).await,
        Command::Account(command) => staking::account(command, json).await,
        Command::Transfer(args) => transfer(args, json).await,
        Command::Model(command) => model(command, json).await,
        Command::Content(command) => content::run(command, json).await,
        Command::Order(command) => order(command, json).await,
        Command::Program(command) => programs::run(command, json).await,
        Command::Dispute(command) => dispute(command, json).await,
        Command::Delegation(command) => staking::delegation(command, json).await,
        Command::Proposal(command) => governing::proposal(command, json).await,
        Command::Votes(command) => governing::votes(command, json).await,
        Command::Dao(command) => shares::dao(command, json).await,
        Command::Asset(command) => market::asset(command, json).await,
        Command::Pool(command) => market::pool(command, json).await,
        Command::Call(command) => calls::run(command, json).await,
        Command::Verify(args) => verify(args, json),
        Command::Emission(command) => economics::emission(command, json).await,
        Command::Scenario(command) => economics::scenario(command, json),
        Command::Profile(command) => economics::profile(command, json),
        Command::Bench(BenchCommand::Ledger { orders }) => bench::ledger(orders, json).await,
        Command::Bench(BenchCommand::Model(args)) => local::bench(args, json),
        Command::Bench(BenchCommand::Calls { count }) => bench_calls::run(count, json),
    }
}

// ---- networks and roles ----

fn init(args: InitArgs, json: bool) -> Result<()> {
    let profile = dev::read_profile(&args.profile, args.dev_windows)?;
    let home = Home(args.dir);
    let genesis = home.init(&Plan {
        network: args.network,
        coordinators: args.coordinators,
        providers: args.providers,
        profile,
        models: Vec::new(),
        test_asset: args.dev_windows,
        port_base: args.port_base,
    })?;
    let dir = home.0.display();
    if json {
        return output::json(&serde_json::json!({
            "directory": home.0, "chain": genesis.chain_id(), "network": genesis.network,
            "network_key": genesis.coordinators, "coordinators": args.coordinators, "providers": args.providers,
        }));
    }
    println!("{}", genesis.chain_id());
    eprintln!(
        "the network {} is in {dir}; start its parts, each in a terminal or on a machine of its own:\n",
        genesis.network
    );
    for index in 0..args.coordinators {
        eprintln!("    althing node --home {}", home.coordinator(index).display());
    }
    for index in 0..args.providers {
        eprintln!("    althing provider --home {}", home.provider(index).display());
    }
    eprintln!("    althing gateway --home {}", home.gateway().display());
    eprintln!("\naddresses are in each home's .toml file; receipts are checked against {dir}/network-key");
    Ok(())
}

async fn node(args: NodeArgs, json: bool) -> Result<()> {
    match args.command {
        Some(NodeCommand::Status { height, node }) => return node_status(height, node, json).await,
        Some(NodeCommand::Protocol { node }) => return governing::protocol(&node, json).await,
        None => {}
    }
    let directory = args.home.context("--home says which coordinator to run")?;
    let home = CoordinatorHome::read(&directory)?;
    let api = bind(home.settings.api).await?;
    let (listen, chain) = (home.settings.listen, home.genesis.chain_id());
    let node = roles::start_node(home, api, args.threads).await?;
    if json {
        output::json(&serde_json::json!({"chain": chain, "api": format!("http://{}", node.api), "listen": listen}))?;
    }
    eprintln!("coordinator of chain {chain}: API at http://{}, others reach it at {listen}", node.api);
    let end = roles::until_end(&node.client).await;
    node.stop().await;
    end
}

async fn node_status(height: Option<u64>, node: NodeUrl, json: bool) -> Result<()> {
    let client = connect(&node.node).await?;
    if let Some(height) = height {
        let block = client.block(height).await?;
        if json {
            return output::json(&block);
        }
        println!("{}", block.state_root);
        eprintln!("height {height}, block {}, time {} ms", block.digest, block.time_ms);
        return Ok(());
    }
    let status: Status = client.status().await?;
    if json {
        return output::json(&status);
    }
    println!("network       {}", status.network);
    println!("chain         {}", status.chain);
    println!("height        {}", status.height);
    println!("time          {} ms", status.time_ms);
    println!("state root    {}", status.state_root);
    println!("coordinators  {}, of which {} others are heard", status.coordinators, status.peers);
    println!("mempool       {}", status.mempool);
    println!("version       {}", status.version);
    Ok(())
}

/// Waits for the node of a role, telling so.
async fn wait_for_node(base: &str) -> Result<Arc<dyn LedgerClient>> {
    let client = Arc::new(althing_sdk::HttpClient::new(base)?);
    let bar = spinner(format!("waiting for the node at {base}"));
    let ready = roles::wait_ready(&*client, Duration::from_secs(120)).await;
    bar.finish_and_clear();
    ready?;
    Ok(client)
}

async fn provider(args: ProviderArgs, json: bool) -> Result<()> {
    if let Some(ProviderCommand::Status { url, home }) = args.command {
        return provider_status(url, home.as_deref(), json).await;
    }
    let home = args.home.context("--home says which provider to run")?;
    let settings = roles::provider_settings(&home)?;
    let client = wait_for_node(&settings.node).await?;
    let listener = bind(settings.listen).await?;
    let engines = roles::Engines::new();
    let running = roles::start_provider(&home, settings, client, listener, &engines, &args.upstream).await?;
    if json {
        output::json(&running.provider.status())?;
    }
    let models = running.models.join(", ");
    eprintln!("provider {} serves {models} at http://{}", running.provider.status().account, running.endpoint);
    roles::until_signal().await;
    Ok(())
}

/// Asks a provider what it did. (T-12, E-4)
async fn provider_status(url: Option<String>, home: Option<&Path>, json: bool) -> Result<()> {
    let url = match (url, home) {
        (Some(url), _) => url,
        (None, Some(home)) => roles::provider_settings(home)?.url(),
        (None, None) => bail!("--url or --home says which provider to ask"),
    };
    let status: ProviderStatus = async {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
        client.get(format!("{}/v1/status", url.trim_end_matches('/'))).send().await?.error_for_status()?.json().await
    }
    .await
    .with_context(|| format!("no provider answers at {url}"))?;
    if json {
        return output::json(&status);
    }
    print_provider(&status);
    Ok(())
}

/// What runs at the moment, and in how much memory.
fn print_serving(serving: &ServingStatus) {
    let mebibytes = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    let ServingStatus { running, waiting, loaded, tokens_fed, tokens_reused, .. } = serving;
    let limit = serving.memory_max_bytes.map_or("without a limit".into(), |max| format!("of {}", mebibytes(max)));
    let (memory, prefixes) = (mebibytes(serving.memory_bytes), mebibytes(serving.prefix_cache_bytes));
    println!("runs      {running}, and {waiting} wait; {} models in memory", loaded.len());
    println!("memory    {memory} {limit}, {prefixes} of it what was read earlier");
    println!("tokens    {tokens_fed} went through models, {tokens_reused} of prompts had been read before");
    for left in &serving.left_out {
        println!("left out  {}", left.why);
    }
}

/// A provider's status for people: earnings by source, models, decisions with their reasons.
fn print_provider(status: &ProviderStatus) {
    println!("provider  {}", status.account);
    println!("height    {}", status.height);
    let ProviderStatus { runs, reveals, deliveries, agreements, contests, votes, .. } = status;
    println!(
        "did       {runs} runs, {reveals} reveals, {deliveries} deliveries, {agreements} agreements, \
         {contests} contests, {votes} votes"
    );
    if let Some(error) = &status.last_error {
        println!("trouble   {error}");
    }
    let (ever, now) = (&status.earned, &status.earned_since_start);
    let row = |source: &str, ever: Amount, now: Amount| vec![source.into(), ever.to_string(), now.to_string()];
    println!();
    table(
        &["EARNED FROM, ALTH", "SINCE GENESIS", "SINCE ITS START"],
        &[
            row("fees", ever.fees, now.fees),
            row("minted rewards", ever.rewards, now.rewards),
            row("slashed bonds", ever.slashes, now.slashes),
        ],
    );
    if let Some(serving) = &status.serving {
        println!();
        print_serving(serving);
    }
    let or_unknown = |number: Option<u64>| number.map_or("?".into(), |number| number.to_string());
    let models = status.by_model.iter().map(|model| {
        vec![
            model.name.clone(),
            model.runs.to_string(),
            or_unknown(model.run_ms),
            or_unknown(model.output_bytes),
            model.supporters.to_string(),
            policy::brief(model.reward.0.try_into().unwrap_or(i128::MAX)),
        ]
    });
    println!();
    table(&["MODEL", "RUNS", "RUN MS", "OUTPUT BYTES", "SUPPORTERS", "REWARD NOW"], &models.collect::<Vec<_>>());
    if !status.elsewhere.is_empty() {
        let servers = status.elsewhere.iter().map(|(model, server)| {
            let name = status.by_model.iter().find(|known| known.model == *model).map(|known| known.name.clone());
            vec![
                name.unwrap_or_else(|| model.to_string()),
                server.runtime.clone(),
                format!("{} of {}", server.running, server.concurrency_max),
                server.waiting.to_string(),
                server.trouble.clone().unwrap_or_else(|| "ready".into()),
            ]
        });
        println!();
        table(&["MODEL ELSEWHERE", "RUNTIME", "RUNNING", "WAITING", "STATE"], &servers.collect::<Vec<_>>());
    }
    let decisions = status.decisions.iter().map(|decision| {
        let appraisal = &decision.appraisal;
        vec![
            decision.order.short(),
            decision.task.name().into(),
            policy::percent(appraisal.chance),
            policy::brief(appraisal.profit),
            appraisal.reason.clone(),
        ]
    });
    println!();
    table(&["ORDER", "TASK", "CHANCE", "PROFIT", "DECISION"], &decisions.collect::<Vec<_>>());
}

async fn gateway(args: GatewayArgs, json: bool) -> Result<()> {
    let settings = roles::gateway_settings(&args.home)?;
    let client = wait_for_node(&settings.node).await?;
    let listener = bind(settings.listen).await?;
    // The shipped model is at hand: what is too long for it is refused before anybody pays.
    let shipped = shipped::tiny_stories()?;
    let registered = client.models().await?.into_iter().find(|model| model.package == shipped.cid);
    let engines = match registered {
        Some(model) => roles::Engines::from([(model.id, Arc::from(althing_runtime::load(&shipped, 1)?))]),
        None => roles::Engines::new(),
    };
    let running = roles::start_gateway(&args.home, settings, client, listener, engines).await?;
    if json {
        output::json(&serde_json::json!({"api": format!("http://{}/v1", running.api)}))?;
    }
    eprintln!(
        "the OpenAI-compatible API is at http://{}/v1; API keys are in {}",
        running.api,
        args.home.join("api-keys.json").display()
    );
    roles::until_signal().await;
    Ok(())
}

/// Prints one value: bare, or as a JSON object.
fn print_named(name: &str, value: &str, json: bool) -> Result<()> {
    if json {
        return output::json(&serde_json::json!({ name: value }));
    }
    println!("{value}");
    Ok(())
}

// ---- asking ----

async fn ask(args: AskArgs, json: bool) -> Result<()> {
    if args.model.ends_with(":open") {
        eprintln!("note: question and answer become public in the open lane");
    }
    let mut body = serde_json::json!({
        "model": args.model, "messages": [{"role": "user", "content": args.question}], "stream": !json,
    });
    if let Some(wait) = args.wait {
        body["wait"] = serde_json::to_value(Level::from(wait))?;
    }
    if let Some(seed) = args.seed {
        body["seed"] = seed.into();
    }
    let client = reqwest::Client::new();
    let url = format!("{}/v1/chat/completions", args.gateway.trim_end_matches('/'));
    let bar = spinner("waiting for the answer");
    let sent = client.post(&url).bearer_auth(&args.api_key).json(&body).send().await;
    let mut response = sent.map_err(|error| anyhow!("no gateway answers at {}: {error}", args.gateway))?;
    if !response.status().is_success() {
        bar.finish_and_clear();
        let error: serde_json::Value = response.json().await.unwrap_or_default();
        bail!("{}", error["error"]["message"].as_str().unwrap_or("the gateway gave no reason"));
    }
    if json {
        let completion: serde_json::Value = response.json().await?;
        bar.finish_and_clear();
        return output::json(&completion);
    }
    // What passes through from a model's own server has them in its headers alone.
    let mut facts = serde_json::Value::Object(
        response
            .headers()
            .iter()
            .filter_map(|(name, value)| {
                let name = name.as_str().strip_prefix("x-althing-")?.replace('-', "_");
                Some((name, value.to_str().ok()?.into()))
            })
            .collect(),
    );
    let mut rest = String::new();
    while let Some(bytes) = response.chunk().await? {
        rest.push_str(&String::from_utf8_lossy(&bytes));
        while let Some(end) = rest.find('\n') {
            let line: String = rest.drain(..=end).collect();
            let Some(data) = line.trim_end().strip_prefix("data:").map(str::trim).filter(|data| *data != "[DONE]")
            else {
                continue;
            };
            let chunk: serde_json::Value = serde_json::from_str(data)?;
            if let Some(message) = chunk["error"]["message"].as_str() {
                bar.finish_and_clear();
                bail!("{message}");
            }
            if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
                bar.finish_and_clear();
                // Nobody's answer gives orders to a terminal.
                print!("{}", text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', ""));
                std::io::Write::flush(&mut output::stdout())?;
            }
            // A server of a stranger's can say what it likes in its own answer.
            if chunk["althing"].is_object() && facts["model_verification"] == "exact" {
                facts = chunk["althing"].clone();
            }
        }
    }
    println!();
    for name in ["order", "provider", "fee", "verification", "output_cid", "receipt"] {
        if let Some(value) = facts[name].as_str() {
            eprintln!("{name:<12}  {value}");
        }
    }
    if facts["model_verification"] == "none" {
        eprintln!("note: nobody can check this model's answers");
    }
    Ok(())
}

// ---- calls ----

async fn transfer(args: TransferArgs, json: bool) -> Result<()> {
    let TransferArgs { to, amount, wallet } = args;
    send(&wallet, json, |_| Call::Transfer { to, amount }).await.map(drop)
}

fn until_ms(days: u64) -> u64 {
    SystemClock.now_ms().saturating_add(days.saturating_mul(DAY_MS))
}

async fn key(command: KeyCommand, json: bool) -> Result<()> {
    match command {
        KeyCommand::New { file } => {
            let wallet = WalletSigner::random();
            wallet.write(&file)?;
            if json {
                return output::json(&serde_json::json!({"address": wallet.account(), "file": file}));
            }
            println!("{}", wallet.account());
            eprintln!("the secret key is in {}: whoever has the file has the account", file.display());
            Ok(())
        }
        KeyCommand::Show { file } => print_named("address", &WalletSigner::read(&file)?.account().to_string(), json),
        KeyCommand::Create { home, spend_limit, days, wallet } => {
            let session = SessionKeyPair::random();
            let account = WalletSigner::read(&wallet.wallet)?.account();
            let key = session.public();
            let expires_at_ms = until_ms(days);
            send(&wallet, false, |_| Call::SessionKeyAdd { key, scope: Scope::Client, spend_limit, expires_at_ms })
                .await?;
            let api_key = ApiKeys::random_text();
            let entry = ApiKey { api_key: api_key.clone(), account, session_key: Hash(session.secret()) };
            ApiKeys::add(&home.join("api-keys.json"), entry)?;
            if json {
                return output::json(&serde_json::json!({"api_key": api_key, "account": account, "session_key": key}));
            }
            println!("{api_key}");
            eprintln!("it spends at most {spend_limit} ALTH of {account}; restart the gateway to use it");
            Ok(())
        }
        KeyCommand::Add { key, scope, spend_limit, days, wallet } => {
            let (scope, expires_at_ms) = (scope.into(), until_ms(days));
            send(&wallet, json, |_| Call::SessionKeyAdd { key, scope, spend_limit, expires_at_ms }).await.map(drop)
        }
        KeyCommand::Revoke { key, wallet } => send(&wallet, json, |_| Call::SessionKeyRevoke { key }).await.map(drop),
    }
}

pub(crate) fn read_package(path: &Path) -> Result<Package> {
    let package = Package::from_path(path).with_context(|| format!("the package in {}", path.display()))?;
    // A package that does not load is of no use to anybody.
    althing_runtime::check(&package).with_context(|| format!("the package in {}", path.display()))?;
    Ok(package)
}

async fn model(command: ModelCommand, json: bool) -> Result<()> {
    match command {
        ModelCommand::List { node } => {
            let models = connect(&node.node).await?.models().await?;
            if json {
                return output::json(&models);
            }
            let rows: Vec<_> = models
                .iter()
                .map(|model| {
                    let verification = format!("{:?}", model.verification).to_lowercase();
                    vec![
                        model.name.clone(),
                        model.fee.to_string(),
                        verification,
                        model.supporters.to_string(),
                        model.runs.to_string(),
                        model.package.to_string(),
                    ]
                })
                .collect();
            table(&["NAME", "FEE", "VERIFICATION", "PROVIDERS", "RUNS", "PACKAGE"], &rows);
            Ok(())
        }
        ModelCommand::Show { model, node } => output::json(&connect(&node.node).await?.model(&model).await?),
        ModelCommand::Register { name, package, terms } => {
            packages::register(name, &read_package(&package)?, terms, json).await
        }
        ModelCommand::Terms { model, fee, payee, wallet } => {
            let model = connect(&wallet.node.node).await?.model(&model).await?;
            let payee = payee.unwrap_or(model.payee);
            send(&wallet, json, |_| Call::ModelTermsSet { model: model.id, fee, payee }).await.map(drop)
        }
        ModelCommand::Run(args) => local::run(args, json),
        ModelCommand::Check(args) => local::check(args, json),
        ModelCommand::Embed(args) => local::embed(args, json),
        ModelCommand::Reward { model, rest: _ } => bail!(
            "governance alone sets rewards: propose it with `althing proposal create --title TITLE --reward \
             {model}=RATE_PERCENT:UNIT_BYTES`"
        ),
        ModelCommand::Adapt(args) => upstreams::adapt(args, json).await,
        ModelCommand::Pack(args) => packages::pack(&args, json),
        ModelCommand::Publish(args) => packages::publish(args, json).await,
        ModelCommand::Pull(args) => packages::pull(args, json).await,
        ModelCommand::Inspect(args) => packages::inspect(&args, json),
        ModelCommand::Cid { package } => print_named("cid", &read_package(&package)?.cid.to_string(), json),
        ModelCommand::Import { package, home } => {
            let store = Arc::new(BlobStore::open(home.join("content"))?);
            let cid = packages::keep(&read_package(&package)?, &store)?;
            print_named("cid", &cid.to_string(), json)
        }
    }
}

fn state(order: &Order) -> String {
    match &order.state {
        OrderState::Submitted => "submitted".into(),
        OrderState::Accepted { .. } => "accepted".into(),
        OrderState::Solved { .. } if order.agreements.is_empty() => "solved".into(),
        OrderState::Solved { .. } => format!("solved, {} agree", order.agreements.len()),
        OrderState::Contested { .. } => "contested".into(),
        OrderState::Claimed => "claimed".into(),
        OrderState::Refunded { reason } => format!("refunded: {reason:?}").to_lowercase(),
    }
}

async fn order(command: OrderCommand, json: bool) -> Result<()> {
    match command {
        OrderCommand::List { open, parent, node } => {
            let filter = if open { OrderFilter::Open } else { OrderFilter::All };
            let mut orders = connect(&node.node).await?.orders(filter).await?;
            orders.retain(|order| parent.is_none() || order.parent == parent);
            if json {
                return output::json(&orders);
            }
            let row = |order: &Order| {
                let provider = order.solutions.first().map_or("-".into(), |solution| solution.provider.to_string());
                vec![
                    order.number.to_string(),
                    order.id.to_string(),
                    order.lane.name().into(),
                    state(order),
                    order.fee.to_string(),
                    provider,
                ]
            };
            table(
                &["NUMBER", "ORDER", "LANE", "STATE", "FEE", "PROVIDER"],
                &orders.iter().map(row).collect::<Vec<_>>(),
            );
            Ok(())
        }
        OrderCommand::Show { order, node } => output::json(&connect(&node.node).await?.order(order).await?),
        OrderCommand::Submit(args) => submit::run(*args, json).await,
        OrderCommand::BudgetClose { order, wallet } => {
            send(&wallet, json, |_| Call::BudgetClose { order }).await.map(drop)
        }
        OrderCommand::Cancel { order, wallet } => send(&wallet, json, |_| Call::OrderCancel { order }).await.map(drop),
        OrderCommand::Claim { order, wallet } => send(&wallet, json, |_| Call::OrderClaim { order }).await.map(drop),
    }
}

async fn dispute(command: DisputeCommand, json: bool) -> Result<()> {
    match command {
        DisputeCommand::List { node } => {
            let cases = connect(&node.node).await?.cases().await?;
            if json {
                return output::json(&cases);
            }
            let rows: Vec<_> = cases
                .iter()
                .map(|case| {
                    let known = case.votes.iter().filter(|vote| vote.answer.is_some()).count();
                    vec![
                        case.order.to_string(),
                        case.solver.to_string(),
                        case.contester.to_string(),
                        known.to_string(),
                        (case.votes.len() - known).to_string(),
                    ]
                })
                .collect();
            table(&["ORDER", "SOLVER", "CONTESTER", "VOTES", "UNOPENED"], &rows);
            Ok(())
        }
        DisputeCommand::Show { order, node } => output::json(&connect(&node.node).await?.case(order).await?),
        DisputeCommand::Open { order, output, wallet } => {
            let ballot = match output {
                Some(output) => Some(ballot(&wallet, &order, 0, BallotAnswer::Output { output }).await?.hash()),
                None => None,
            };
            send(&wallet, json, |_| Call::Contest { order, ballot }).await.map(drop)
        }
        DisputeCommand::Vote { order, answer, wallet } => {
            let call = match ballot_answer(&answer) {
                BallotAnswer::Uphold => Call::Vote { order, refute: false },
                BallotAnswer::Refute => Call::Vote { order, refute: true },
                answer => {
                    let round = round_of(&wallet, order).await?;
                    ballot(&wallet, &order, round, answer).await?.commit()
                }
            };
            send(&wallet, json, |_| call).await.map(drop)
        }
        DisputeCommand::Reveal { order, answer, wallet } => {
            let round = round_of(&wallet, order).await?;
            let call = ballot(&wallet, &order, round, ballot_answer(&answer)).await?.open();
            send(&wallet, json, |_| call).await.map(drop)
        }
    }
}

fn ballot_answer(answer: &VoteAnswer) -> BallotAnswer {
    match answer {
        VoteAnswer { uphold: true, .. } => BallotAnswer::Uphold,
        VoteAnswer { refute: true, .. } => BallotAnswer::Refute,
        VoteAnswer { output: Some(output), .. } => BallotAnswer::Output { output: *output },
        _ => BallotAnswer::InputUnavailable,
    }
}

/// Which jury judges.
async fn round_of(wallet: &Wallet, order: OrderId) -> Result<u8> {
    let case = connect(&wallet.node.node).await?.case(order).await?;
    Ok(case.jury.map_or(0, |jury| jury.round))
}

async fn ballot(wallet: &Wallet, order: &OrderId, round: u8, answer: BallotAnswer) -> Result<Ballot> {
    let signer = WalletSigner::read(&wallet.wallet)?;
    let chain = connect(&wallet.node.node).await?.status().await?.chain;
    Ok(Ballot::new(&chain, order, round, &signer.account(), answer, &signer.secret()))
}

// ---- receipts ----

fn verify(args: VerifyArgs, json: bool) -> Result<()> {
    let bytes = std::fs::read(&args.receipt).with_context(|| format!("cannot read {}", args.receipt.display()))?;
    let read = receipt::read(&bytes)?;
    let (network_key, trusted) = match &args.network_key {
        Some(key) if Path::new(key).is_file() => (std::fs::read_to_string(key)?.trim().to_owned(), true),
        Some(key) => (key.clone(), true),
        None => (read.network_key.clone(), false),
    };
    let checked = receipt::verify(&read, &network_key)?;
    let mut rerun = None;
    if args.rerun {
        let package = match &args.package {
            Some(directory) => read_package(directory)?,
            None => shipped::tiny_stories()?,
        };
        if package.cid != checked.order.package {
            bail!(
                "the order ran package {}, this is {}: name its directory with --package",
                checked.order.package,
                package.cid
            );
        }
        let seed = checked.order.seed.context("the order has no seed")?;
        let bar = spinner("running the model again");
        let output = althing_runtime::load(&package, 1)?.run(&read.input, seed, &mut |_| true)?;
        bar.finish_and_clear();
        if output != read.output {
            bail!("the model gives other bits: the answer is wrong, whoever signed it");
        }
        rerun = Some(true);
    }
    if json {
        return output::json(&serde_json::json!({
            "valid": true, "network_key_trusted": trusted, "network_key": network_key, "height": checked.height,
            "time_ms": checked.time_ms, "state_root": Hash(checked.state_root), "order": checked.order.id,
            "package": checked.order.package, "seed": checked.order.seed, "provider": checked.solution.provider,
            "output_cid": checked.solution.output, "agreed_by": checked.agreed_by, "rerun_equal": rerun,
        }));
    }
    println!("valid");
    eprintln!("order     {} in the state of block {}", checked.order.id, checked.height);
    eprintln!("answered  by {}", checked.solution.provider);
    for provider in &checked.agreed_by {
        eprintln!("agreed    {provider}");
    }
    if rerun.is_some() {
        eprintln!("re-run    the same bits on this machine");
    }
    if !trusted {
        eprintln!(
            "note: checked against the key in the receipt itself; with --network-key you say which network you trust"
        );
    }
    Ok(())
}
