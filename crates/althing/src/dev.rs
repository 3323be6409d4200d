//! `althing dev`: a whole network in one process, from nothing.

use crate::{
    cli::DevArgs,
    home::{CoordinatorHome, Home, Plan, PlannedModel},
    local::threads_of_machine,
    output::{self, spinner},
    packages,
    roles::{self, Engines, RunningGateway, RunningNode, RunningProvider, bind},
    shipped,
    upstreams::{self, UpstreamSettings},
};
use althing_content::Cid;
use althing_gateway::{Answer, AnswerOutput, ApiKey, Ask, AskInput, LaneWish, Level, Progress};
use althing_provider::Behaviour;
use althing_runtime::{
    ChatInput, EmbeddingInput, Engine, ImageInput, Interface, Package, SpeechInput, embedding::Vector,
    media::IMAGE_SIDE_DEFAULT,
};
use althing_sdk::LedgerClient;
use althing_types::{Hash, Verification, genesis::GenesisModel, profile};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

const LOOPBACK_ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
/// How long all parts may take to be ready.
const READY_WAIT: Duration = Duration::from_secs(60);

/// The running network. Fields drop in this order: clients before what they use.
struct Network {
    gateway: RunningGateway,
    providers: Vec<RunningProvider>,
    nodes: Vec<RunningNode>,
    api_key: ApiKey,
    home: Home,
    /// The model that questions go to.
    model: String,
    asks: Asks,
}

/// What `--ready-json` writes.
#[derive(Serialize)]
struct Ready<'a> {
    gateway: String,
    api_key: &'a str,
    nodes: Vec<String>,
    providers: Vec<ReadyProvider>,
    data: &'a Path,
    network_key: PathBuf,
    wallet: PathBuf,
    pid: u32,
}

#[derive(Serialize)]
struct ReadyProvider {
    account: althing_types::Address,
    endpoint: String,
    behaviour: Behaviour,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Told<'a> {
    answer: &'a str,
    order: althing_types::OrderId,
    model: &'a str,
    package: althing_content::Cid,
    seed: Option<u64>,
    provider: althing_types::Address,
    output_cid: althing_content::Cid,
    agreed_by: &'a [althing_types::Address],
    verification: Level,
    model_verification: Verification,
    fee: althing_types::Amount,
    receipt: &'a str,
    refuted_orders: Vec<althing_types::OrderId>,
    elapsed_ms: u64,
}

/// Reads a profile: a file, or one that is shipped by its name. With `dev`, its windows are seconds.
pub fn read_profile(name: &str, dev: bool) -> Result<profile::Profile> {
    let text = match profile::shipped(name) {
        Some(text) => text.to_owned(),
        None => std::fs::read_to_string(name).with_context(|| {
            let names: Vec<_> = profile::SHIPPED.iter().map(|(name, _)| *name).collect();
            format!("{name} is neither a file nor a shipped profile ({})", names.join(", "))
        })?,
    };
    profile::parse(&text, dev).with_context(|| format!("the profile {name}"))
}

/// Runs the command.
///
/// # Errors
/// What a person can act on.
pub async fn run(args: DevArgs, json: bool) -> Result<()> {
    if args.exit && args.ask.is_none() {
        bail!("--exit ends after the answer: say what to --ask");
    }
    let begun = Instant::now();
    let progress = spinner("starting");
    let network = start(&args, &progress).await?;
    progress.finish_and_clear();
    let gateway = format!("http://{}", network.gateway.api);
    eprintln!(
        "{} coordinator(s), {} provider(s) and a gateway run in {}",
        network.nodes.len(),
        network.providers.len(),
        network.home.0.display()
    );
    if let Some(path) = &args.ready_json {
        write_ready(path, &network, &gateway)?;
    }
    if let Some(question) = &args.ask {
        let (answer, refuted) = ask(&network, question).await?;
        let shown = network.asks.show(&answer, &network.home.0)?;
        tell(&answer, &shown, refuted, json, begun.elapsed())?;
    }
    if args.exit {
        stop(network).await;
        return Ok(());
    }
    if !json {
        snippets(&network, &gateway);
    }
    let end = match network.nodes.first() {
        Some(node) => roles::until_end(&node.client).await,
        None => Ok(()),
    };
    eprintln!("stopping");
    stop(network).await;
    end
}

async fn stop(network: Network) {
    drop(network.gateway);
    drop(network.providers);
    for node in network.nodes {
        node.stop().await;
    }
}

async fn start(args: &DevArgs, progress: &indicatif::ProgressBar) -> Result<Network> {
    let home = Home(match &args.data {
        Some(directory) => directory.clone(),
        None => tempfile::Builder::new().prefix("althing-dev-").tempdir()?.keep(),
    });
    let own = match (&args.model, &args.upstream) {
        (Some(path), _) => Some(own_model(path, progress)?),
        (None, Some(url)) => Some(upstream_model(url, args, progress).await?),
        (None, None) => None,
    };
    if !home.exists() {
        if args.liars > args.providers {
            bail!("{} of {} providers cannot lie", args.liars, args.providers);
        }
        progress.set_message("making a network");
        let profile = read_profile(&args.profile, true)?;
        home.init(&Plan {
            network: "dev".into(),
            coordinators: args.coordinators,
            providers: args.providers,
            profile,
            models: own.iter().map(OwnModel::planned).collect(),
            test_asset: true,
            port_base: 7700,
        })?;
    }
    let genesis = home.genesis()?;
    for (kind, asked, default) in [("coordinators", args.coordinators, 1), ("providers", args.providers, 4)] {
        let there = home.count(kind);
        if there != asked && asked != default {
            eprintln!("note: the network in {} has {there} {kind}; --{kind} is for new networks", home.0.display());
        }
    }
    let windows = &genesis.params;
    eprintln!(
        "windows of this dev network: challenge {} s, voting {} s, unbonding {} s",
        windows.challenge_window_ms / 1000,
        windows.voting_period_ms / 1000,
        windows.unbonding_ms / 1000
    );

    progress.set_message("loading the model");
    let package = shipped::tiny_stories()?;
    let shipped = Arc::from(althing_runtime::load(&package, 1)?);
    let mut loaded: BTreeMap<Cid, Arc<dyn Engine>> = BTreeMap::from([(package.cid, shipped)]);
    let mut model = "tiny-stories".to_owned();
    if let Some(own) = &own {
        let registered = genesis.models.iter().find(|model| model.package == own.package.cid);
        model = registered.map(|model| model.name.clone()).with_context(|| {
            format!(
                "the network in {} was made without this model: --model and --upstream are for new networks",
                home.0.display()
            )
        })?;
        if let Runs::Here(engine) = &own.runs {
            loaded.insert(own.package.cid, engine.clone());
        }
    }
    let engine_of = |model: &GenesisModel| Some((model.id(), loaded.get(&model.package)?.clone()));
    let engines: Engines = genesis.models.iter().filter_map(engine_of).collect();

    // Whoever fetches inputs has to know where they are.
    let default = if args.exit { SocketAddr::from(LOOPBACK_ANY) } else { SocketAddr::from(([127, 0, 0, 1], 8700)) };
    let gateway_listener = bind(args.listen.unwrap_or(default)).await?;
    let content_sources = vec![format!("http://{}", gateway_listener.local_addr()?)];

    progress.set_message("starting coordinators");
    let nodes = start_nodes(args, &home, &content_sources).await?;
    let client_of = |index: usize| -> Arc<dyn LedgerClient> { nodes[index % nodes.len()].client.clone() };
    for node in &nodes {
        roles::wait_ready(&*node.client, READY_WAIT).await?;
    }

    progress.set_message("starting providers");
    let count = home.count("providers");
    let mut providers = Vec::new();
    for index in 0..count {
        let directory = home.provider(index);
        let mut settings = roles::provider_settings(&directory)?;
        // Nothing here outlives the process, so any free port will do.
        settings.listen = SocketAddr::from(LOOPBACK_ANY);
        settings.content_sources = content_sources.clone();
        settings.sources_private = true;
        // Those that this process was not given are not there.
        let is_here = |name: &str| genesis.models.iter().any(|m| m.name == name && engines.contains_key(&m.id()));
        settings.models.retain(|name| is_here(name));
        if let Some(OwnModel { package, runs: Runs::Elsewhere(upstream), .. }) = &own {
            packages::keep(package, &Arc::new(settings.content.open(directory.join("content"))?))?;
            settings.upstreams.insert(model.clone(), (**upstream).clone());
        }
        if index + args.liars >= count {
            settings.behaviour = Behaviour::Liar;
        }
        let listener = bind(settings.listen).await?;
        let client = client_of(index as usize);
        providers.push(roles::start_provider(&directory, settings, client, listener, &engines, &[]).await?);
    }
    wait_for_supporters(&*nodes[0].client, &providers).await?;

    progress.set_message("starting the gateway");
    let directory = home.gateway();
    let settings = roles::gateway_settings(&directory)?;
    let gateway = roles::start_gateway(&directory, settings, client_of(0), gateway_listener, engines).await?;
    let keys: Vec<ApiKey> = serde_json::from_slice(&std::fs::read(directory.join("api-keys.json"))?)?;
    let api_key =
        keys.into_iter().next().context("the gateway's home has no API key: `althing key create` makes one")?;
    let interface = match &own {
        Some(own) => own.package.manifest.interface()?,
        None => Interface::Chat,
    };
    let asks = match own.map(|own| own.package.manifest) {
        Some(manifest) if manifest.passes_through() => Asks::Passthrough(interface),
        Some(manifest) if manifest.is_served_elsewhere() => Asks::Chosen(interface),
        _ => Asks::Open(interface),
    };
    Ok(Network { gateway, providers, nodes, api_key, home, model, asks })
}

/// How questions to the model are put.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Open(Interface),
    /// Nobody can check its answers. (T-20)
    Chosen(Interface),
    /// In OpenAI's own words.
    Passthrough(Interface),
}

impl Asks {
    fn lane(self) -> LaneWish {
        match self {
            Self::Open(_) => LaneWish::Open,
            Self::Chosen(_) | Self::Passthrough(_) => LaneWish::Chosen,
        }
    }

    fn input(self, question: &str) -> Result<AskInput> {
        Ok(match self {
            Self::Passthrough(interface @ Interface::Chat) => {
                let body = serde_json::json!({"messages": [{"role": "user", "content": question}]});
                AskInput::Passthrough { interface, body: body.to_string() }
            }
            Self::Passthrough(interface) => {
                bail!("--ask is for models that chat; this one answers at /v1/{}", interface.path())
            }
            Self::Open(interface) | Self::Chosen(interface) => match interface {
                Interface::Chat => AskInput::Chat(ChatInput::ask(question)),
                Interface::Embedding => AskInput::Embedding(EmbeddingInput { texts: vec![question.into()] }),
                Interface::Json => AskInput::Json(question.into()),
                Interface::Image => AskInput::Image(ImageInput {
                    prompt: question.into(),
                    width: IMAGE_SIDE_DEFAULT,
                    height: IMAGE_SIDE_DEFAULT,
                }),
                Interface::Speech => AskInput::Speech(SpeechInput {
                    text: question.into(),
                    voice: None,
                    format: None,
                    speed: None,
                    instructions: None,
                }),
            },
        })
    }

    /// An answer for people; files go into `directory`.
    fn show(self, answer: &Answer, directory: &Path) -> Result<String> {
        Ok(match &answer.output {
            AnswerOutput::Chat { text, .. } => text.clone(),
            AnswerOutput::Json(output) => output.clone(),
            AnswerOutput::Embeddings { vectors, .. } => {
                let vector = vectors.first().and_then(Vector::values).unwrap_or_default();
                format!("a vector of {} numbers", vector.len())
            }
            AnswerOutput::File { media_type, bytes } => {
                let extension = media_type.rsplit('/').next().unwrap_or("bin");
                let path = directory.join(format!("{}.{extension}", answer.order.id.short()));
                std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
                path.display().to_string()
            }
            AnswerOutput::Passthrough { bytes, .. } => {
                let body: serde_json::Value = serde_json::from_slice(bytes)?;
                body["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
            }
        })
    }
}

/// A model of one's own, to be served beside the shipped one.
struct OwnModel {
    name: String,
    package: Package,
    runs: Runs,
}

/// Where a model runs.
enum Runs {
    Here(Arc<dyn Engine>),
    Elsewhere(Box<UpstreamSettings>),
}

impl OwnModel {
    fn planned(&self) -> PlannedModel {
        let verification = packages::verification(&self.package.manifest);
        PlannedModel { name: self.name.clone(), package: self.package.cid, verification }
    }
}

/// The model of a server that is there already.
async fn upstream_model(url: &str, args: &DevArgs, progress: &indicatif::ProgressBar) -> Result<OwnModel> {
    progress.set_message(format!("looking at {url}"));
    let upstream = args.upstream_server.at(url);
    let (package, _) = upstreams::describe(&upstream, None, None).await?;
    let name = package.manifest.name.clone();
    ensure_other_name(&name)?;
    Ok(OwnModel { name, package, runs: Runs::Elsewhere(Box::new(upstream)) })
}

fn ensure_other_name(name: &str) -> Result<()> {
    anyhow::ensure!(name != "tiny-stories", "the shipped model is called tiny-stories: give yours another name");
    Ok(())
}

fn own_model(path: &Path, progress: &indicatif::ProgressBar) -> Result<OwnModel> {
    progress.set_message(format!("loading {}", path.display()));
    let package = Package::from_path(path).with_context(|| format!("the model in {}", path.display()))?;
    let threads = threads_of_machine();
    let engine =
        althing_runtime::load(&package, threads).with_context(|| format!("the model in {}", path.display()))?;
    let name = package.manifest.name.clone();
    ensure_other_name(&name)?;
    Ok(OwnModel { name, package, runs: Runs::Here(Arc::from(engine)) })
}

/// Starts the coordinators on addresses that are free at the moment.
async fn start_nodes(args: &DevArgs, home: &Home, content_sources: &[String]) -> Result<Vec<RunningNode>> {
    let count = home.count("coordinators");
    let mut homes = Vec::new();
    let mut reserved = Vec::new();
    for index in 0..count {
        let mut coordinator = CoordinatorHome::read(&home.coordinator(index))?;
        let socket = std::net::TcpListener::bind(SocketAddr::from(LOOPBACK_ANY)).context("no free port")?;
        coordinator.settings.listen = socket.local_addr()?;
        coordinator.settings.content_sources = content_sources.to_vec();
        coordinator.settings.sources_private = true;
        reserved.push((Hash(coordinator.secret.public_key()), socket));
        homes.push(coordinator);
    }
    let addresses: Vec<_> = homes.iter().map(|home| home.settings.listen).collect();
    let keys: Vec<Hash> = reserved.iter().map(|(key, _)| *key).collect();
    drop(reserved);
    let default = if args.exit { SocketAddr::from(LOOPBACK_ANY) } else { SocketAddr::from(([127, 0, 0, 1], 8701)) };
    let mut starting = Vec::new();
    for (index, mut coordinator) in homes.into_iter().enumerate() {
        for peer in &mut coordinator.settings.peers {
            let position =
                keys.iter().position(|key| *key == peer.key).context("an unknown coordinator in node.toml")?;
            peer.address = addresses[position];
        }
        let api = match index {
            0 => bind(args.listen_node.unwrap_or(default)).await?,
            _ => bind(SocketAddr::from(LOOPBACK_ANY)).await?,
        };
        starting.push(roles::start_node(coordinator, api, 2));
    }
    // Together: none is ready before most are.
    futures::future::try_join_all(starting).await
}

/// Waits until the ledger knows what every provider serves.
async fn wait_for_supporters(client: &dyn LedgerClient, providers: &[RunningProvider]) -> Result<()> {
    let until = Instant::now() + READY_WAIT;
    for running in providers {
        let status = running.provider.status();
        loop {
            let known = client.provider(status.account).await?;
            if known.models.len() == status.models.len() && known.endpoint == status.endpoint {
                break;
            }
            if Instant::now() > until {
                let trouble = running.provider.status().last_error.unwrap_or_else(|| "no block came".into());
                bail!("provider {} could not announce its models: {trouble}", status.account);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

fn write_ready(path: &Path, network: &Network, gateway: &str) -> Result<()> {
    let ready = Ready {
        gateway: gateway.to_owned(),
        api_key: &network.api_key.api_key,
        nodes: network.nodes.iter().map(|node| format!("http://{}", node.api)).collect(),
        providers: network
            .providers
            .iter()
            .map(|running| ReadyProvider {
                account: running.provider.status().account,
                endpoint: format!("http://{}", running.endpoint),
                behaviour: running.provider.status().behaviour,
            })
            .collect(),
        data: &network.home.0,
        network_key: network.home.0.join("network-key"),
        wallet: network.home.wallet("client"),
        pid: std::process::id(),
    };
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec_pretty(&ready)?)
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Asks in the open lane, telling what happens.
async fn ask(network: &Network, question: &str) -> Result<(Answer, Vec<althing_types::OrderId>)> {
    let (sender, mut happening) = mpsc::unbounded_channel();
    let ask = Ask {
        model: network.model.clone(),
        lane: network.asks.lane(),
        input: network.asks.input(question)?,
        seed: None,
        provider: None,
        wait: None,
    };
    let bar = spinner(match network.asks {
        Asks::Open(_) => "ordering a run; question and answer are public in the open lane",
        _ => "ordering a run from one provider: nobody can check this model's answers",
    });
    let mut refuted = Vec::new();
    let asking = async {
        let answer = network.gateway.gateway.ask(&network.api_key, &ask, &sender).await;
        drop(sender);
        answer
    };
    let telling = async {
        while let Some(progress) = happening.recv().await {
            match progress {
                Progress::Ordered { order, .. } => {
                    bar.set_message(format!("order {} waits for an answer", order.short()))
                }
                Progress::Answered { provider } => bar.set_message(format!("{provider} answered; others re-run it")),
                Progress::Contested { order } => {
                    bar.suspend(|| {
                        eprintln!(
                            "the answer of order {} is contested: others re-ran it and got something else",
                            order.short()
                        )
                    });
                    bar.set_message("the network votes on the answer");
                }
                Progress::Refuted { order, provider } => {
                    refuted.push(order);
                    let who = provider.map_or(String::new(), |provider| format!(" and {provider} slashed"));
                    bar.suspend(|| {
                        eprintln!(
                            "the answer of order {} was refuted{who}; the fee is refunded; asking again",
                            order.short()
                        )
                    });
                }
                Progress::Text(_) => {}
            }
        }
    };
    let (answer, ()) = futures::future::join(asking, telling).await;
    bar.finish_and_clear();
    Ok((answer?, refuted))
}

fn tell(
    answer: &Answer,
    shown: &str,
    refuted: Vec<althing_types::OrderId>,
    json: bool,
    elapsed: Duration,
) -> Result<()> {
    if json {
        return output::json(&Told {
            answer: shown,
            order: answer.order.id,
            model: &answer.model.name,
            package: answer.order.package,
            seed: answer.order.seed,
            provider: answer.provider,
            output_cid: answer.output_cid,
            agreed_by: &answer.agreed_by,
            verification: answer.level,
            model_verification: answer.model.verification,
            fee: answer.order.fee,
            receipt: &answer.receipt_place,
            refuted_orders: refuted,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        });
    }
    println!("\n{shown}\n");
    let seed = answer.order.seed.map_or("none".into(), |seed| seed.to_string());
    eprintln!("order     {}", answer.order.id);
    eprintln!("model     {} ({})", answer.model.name, answer.order.package);
    eprintln!("seed      {seed}, given by the network");
    eprintln!("answered  by {}", answer.provider);
    eprintln!("output    {}", answer.output_cid);
    for provider in &answer.agreed_by {
        eprintln!("re-run    by {provider}: the same bits");
    }
    eprintln!("fee       {} ALTH", answer.order.fee);
    eprintln!("receipt   {}", answer.receipt_place);
    match answer.model.verification {
        Verification::Exact => eprintln!("          check it: althing verify --rerun {}\n", answer.receipt_place),
        Verification::None => {
            eprintln!("          check it: althing verify {}", answer.receipt_place);
            eprintln!("note: nobody can check what this model answers; the receipt says who did, and for how much\n");
        }
    }
    Ok(())
}

fn snippets(network: &Network, gateway: &str) {
    let (key, model) = (&network.api_key.api_key, &network.model);
    let lanes = match network.asks {
        Asks::Open(_) => format!(
            "{model} goes straight to one provider; {model}:open is a race with agreement, where question and answer \
             are public."
        ),
        _ => format!("{model} goes straight to one provider, and nobody can check its answers."),
    };
    let (Asks::Open(interface) | Asks::Chosen(interface) | Asks::Passthrough(interface)) = network.asks;
    let (body, python) = match interface {
        Interface::Chat => (
            r#""messages":[{"role":"user","content":"Tell me a story about an owl"}]"#,
            r#"for chunk in client.chat.completions.create(model="MODEL", stream=True,
            messages=[{"role": "user", "content": "Tell me a story about a bear"}]):
        print(chunk.choices[0].delta.content or "", end="")"#,
        ),
        Interface::Embedding => (
            r#""input":"free men met once a year""#,
            r#"print(client.embeddings.create(model="MODEL", input="free men met once a year").data[0].embedding)"#,
        ),
        Interface::Json => {
            (r#""input":{}"#, r#"print(client.post("/json", body={"model": "MODEL", "input": {}}, cast_to=object))"#)
        }
        Interface::Image => (
            r#""prompt":"islands in the sea, morning""#,
            r#"import base64
    image = client.images.generate(model="MODEL", prompt="islands in the sea, morning").data[0]
    open("picture.png", "wb").write(base64.b64decode(image.b64_json))"#,
        ),
        Interface::Speech => (
            r#""input":"Free men met once a year.""#,
            r#"client.audio.speech.create(model="MODEL", voice="default", input="Free men met once a year.").write_to_file("speech")"#,
        ),
    };
    eprintln!(
        r#"The OpenAI-compatible API is at {gateway}/v1. {lanes}

    curl {gateway}/v1/{path} -H "Authorization: Bearer {key}" \
      -H "Content-Type: application/json" \
      -d '{{"model":"{model}",{body}}}'

    from openai import OpenAI
    client = OpenAI(base_url="{gateway}/v1", api_key="{key}")
    {python}

In a browser: {gateway}/#key={key}
The ledger: althing order list --node http://{node}
Ctrl-C ends it; `althing dev --data {data}` goes on.
"#,
        path = interface.path(),
        python = python.replace("MODEL", model),
        node = network.nodes[0].api,
        data = network.home.0.display()
    );
}
