//! Starting the parts of a network: the same for `dev`, which starts all of them in one process, and
//! for one of them alone.

use crate::{
    home::{CoordinatorHome, GatewaySettings, NodeSettings, ProviderSettings, read_toml},
    local::threads_of_machine,
    packages, shipped,
    upstreams::{UpstreamArg, Upstreams},
};
use althing_chain::{ChainConfig, MempoolConfig, Node, NodeConfig, Pacing};
use althing_content::{BlobStore, Client, Limits, fetch_dag};
use althing_gateway::{ApiKeys, FileReceipts, Gateway, GatewayConfig, HttpDeliveries, StorePackages};
use althing_node::{InputWatch, LedgerMachine, NodeClient};
use althing_provider::{Adapters, AllModels, FileJournal, ModelServer, Provider, ProviderConfig, ServedModel, Source};
use althing_runtime::{Engine, Package, package::Manifest, wasm::init_bytes_max};
use althing_sdk::{Clock, FetchedContent, HttpClient, LedgerClient, Sender, SessionKeyPair, StoreContent, SystemClock};
use althing_types::{ContentSource, Model, ModelId, Verification};
use anyhow::{Context as _, Result, bail, ensure};
use futures::FutureExt as _;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// The models that a process has in memory for all its roles, by their ids on the ledger.
pub type Engines = BTreeMap<ModelId, Arc<dyn Engine>>;

/// Tasks that end when this is dropped.
#[derive(Default)]
pub struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    fn add(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(tokio::spawn(task));
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Binds an address; what goes wrong names it.
///
/// # Errors
/// If the address is in use or not of this machine.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}: choose another address"))
}

fn serve(tasks: &mut Tasks, listener: TcpListener, router: axum::Router) {
    tasks.add(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
}

/// A coordinator with its API.
pub struct RunningNode {
    pub client: Arc<NodeClient>,
    pub api: SocketAddr,
    /// Dropped first: requests end before the node does.
    _tasks: Tasks,
    node: Option<Node>,
}

impl RunningNode {
    /// Stops it; its files are closed when this returns.
    pub async fn stop(mut self) {
        if let Some(node) = self.node.take() {
            let _ = tokio::task::spawn_blocking(move || node.stop()).await;
        }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        // Stopping joins a thread, which must not happen on a thread of this runtime.
        if let Some(node) = self.node.take() {
            std::thread::spawn(move || node.stop());
        }
    }
}

/// Starts a coordinator.
///
/// # Errors
/// If its files or addresses cannot be used.
pub async fn start_node(home: CoordinatorHome, api: TcpListener, threads: usize) -> Result<RunningNode> {
    let machine = Arc::new(LedgerMachine::new(&home.genesis).context("the genesis")?);
    let config = NodeConfig {
        chain: ChainConfig {
            prefix: "althing".into(),
            network: home.network.clone(),
            secret: home.secret,
            chain_id: home.genesis.chain_id().0,
            genesis_time_ms: home.genesis.time_ms,
            pacing: Pacing::default(),
            mempool: MempoolConfig::default(),
        },
        directory: home.directory.join("chain"),
        listen: home.settings.listen,
        peers: home.settings.peers.iter().map(|peer| (peer.key.0, peer.address)).collect(),
        threads,
    };
    let node = tokio::task::spawn_blocking(move || Node::start_tokio(config, machine)).await??;
    // One that stopped before an upgrade does not go on with the same program. (G-2)
    let halted = node.handle().halted().now_or_never();
    if let Some(reason) = halted {
        tokio::task::spawn_blocking(move || node.stop()).await?;
        anyhow::bail!(reason);
    }
    let client = Arc::new(NodeClient::new(node.handle().clone(), &home.genesis, &home.network));
    let mut tasks = Tasks::default();
    let address = api.local_addr()?;
    serve(&mut tasks, api, althing_node::router(client.clone()));
    if let Some(account) = home.account {
        let NodeSettings { sources_private, listen, ref peers, .. } = home.settings;
        let others = peers.iter().map(|peer| peer.address.ip());
        let places: Vec<_> = [address.ip(), listen.ip()].into_iter().chain(others).map(|ip| ip.to_string()).collect();
        warn_of_private(sources_private, &places);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let sender = Sender::new(client.clone(), clock.clone(), Arc::new(account), home.genesis.chain_id());
        let watch = InputWatch {
            client: client.clone(),
            clock,
            sender: Arc::new(sender),
            content: Arc::new(FetchedContent),
            sources: home.settings.content_sources,
            sources_private: home.settings.sources_private,
        };
        tasks.add(async move { watch.run().await });
    }
    Ok(RunningNode { client, api: address, _tasks: tasks, node: Some(node) })
}

/// Whoever can reach a role can have it ask its neighbours, if it follows strangers there: `places` are the hosts where it
/// can be reached, or is in company.
fn warn_of_private(sources_private: bool, places: &[String]) {
    let is_here = |host: &String| {
        host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    if let (true, Some(place)) = (sources_private, places.iter().find(|place| !is_here(place))) {
        tracing::warn!(
            place,
            "sources_private is set where others can reach this: they can make it ask private addresses"
        );
    }
}

/// Waits until a node answers.
///
/// # Errors
/// If it does not within `wait`.
pub async fn wait_ready(client: &dyn LedgerClient, wait: Duration) -> Result<()> {
    let until = std::time::Instant::now() + wait;
    loop {
        match client.status().await {
            Ok(_) => return Ok(()),
            Err(error) if std::time::Instant::now() > until => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Models that a provider serves: on engines here, or on servers elsewhere.
#[derive(Default)]
struct ToServe {
    here: BTreeMap<ModelId, ServedModel>,
    elsewhere: Adapters,
}

/// Where models are found.
struct Found<'a> {
    /// Those already in memory in this process.
    engines: &'a Engines,
    store: &'a Arc<BlobStore>,
    /// Where packages come from that the store lacks.
    sources: &'a [String],
    upstreams: &'a Upstreams,
    /// The provider's home.
    home: &'a Path,
}

/// Models to be served, by name: the shipped one from the binary, others from the store, to which those that
/// it lacks are brought. One whose package is of no use is among them, with the reason.
///
/// # Errors
/// If one is not registered, or the settings for its server cannot be used.
async fn models_to_serve(client: &dyn LedgerClient, names: &[String], found: &Found<'_>) -> Result<ToServe> {
    let shipped = shipped::tiny_stories()?;
    let threads = threads_of_machine();
    let mut models = ToServe::default();
    for name in names {
        let model = client.model(name).await.with_context(|| format!("the model {name}"))?;
        let source = if let Some(engine) = found.engines.get(&model.id) {
            Source::Shared(engine.clone())
        } else if model.package == shipped.cid {
            // Products so small are not split among threads.
            Source::Package {
                bytes: shipped.bytes(),
                init_bytes: 0,
                load: Arc::new(|| althing_runtime::load(&shipped::tiny_stories()?, 1)),
            }
        } else {
            match usable_package(&model, found).await {
                Err(error) => Source::Nowhere(format!("{error:#}")),
                Ok((manifest, _)) if manifest.is_served_elsewhere() => {
                    let adapter = found.upstreams.adapter(name, &manifest, found.home).await?;
                    if let Some(trouble) = adapter.look().await {
                        eprintln!("note: {name} has no use at the moment and is tried again: {trouble}");
                    }
                    models.elsewhere.insert(model.id, Arc::new(adapter));
                    continue;
                }
                Ok((manifest, bytes)) => {
                    let init_bytes = init_bytes_max(&manifest);
                    let (store, cid) = (found.store.clone(), model.package);
                    let load = move || althing_runtime::load(&Package::from_store(&*store, &cid)?, threads);
                    Source::Package { bytes, init_bytes, load: Arc::new(load) }
                }
            }
        };
        models.here.insert(model.id, ServedModel { name: name.clone(), source });
    }
    Ok(models)
}

/// Brings a model's package; its manifest, and how large its files are.
///
/// # Errors
/// If it is nowhere to be found, is no package, or is not what the ledger was told.
async fn usable_package(model: &Model, found: &Found<'_>) -> Result<(Manifest, u64)> {
    let bytes = fetch_package(found.store, model.package, found.sources).await?;
    let (manifest, _) = packages::contents(found.store, &model.package)?;
    manifest.check()?;
    ensure!(
        manifest.is_exact() || model.verification != Verification::Exact,
        "it is registered as if others could re-run it, and its package says that they cannot: whoever serves it can be \
         contested and slashed for telling the truth"
    );
    Ok((manifest, bytes))
}

/// Sees to it that a package is in the store; how large its files are.
async fn fetch_package(store: &Arc<BlobStore>, cid: althing_content::Cid, sources: &[String]) -> Result<u64> {
    let adding = Arc::new(store.adding()?);
    if let Ok(bytes) = package_bytes(store, cid).await
        && pin_package(store, cid).await.is_ok()
    {
        return Ok(bytes);
    }
    let peers = sources.iter().map(|source| Client::new(source)).collect::<Result<Vec<_>, _>>()?;
    let limits = Limits::bytes(althing_runtime::package::PACKAGE_BYTES_MAX);
    fetch_dag(&adding, &peers, &cid, &limits, |_| {}).await.with_context(|| {
        format!("{cid} is not here: import it with `althing model import`, or name a content source that has it")
    })?;
    pin_package(store, cid).await?;
    package_bytes(store, cid).await
}

/// Sees to it that a package that was read stays. Waits for the disk.
async fn pin_package(store: &Arc<BlobStore>, cid: althing_content::Cid) -> Result<()> {
    let store = store.clone();
    Ok(tokio::task::spawn_blocking(move || store.pin(&package_pin(&cid), &cid)).await??)
}

/// The name under which a package is pinned: no quota drives it out.
pub fn package_pin(cid: &althing_content::Cid) -> String {
    format!("package {cid}")
}

/// A provider with its endpoint.
pub struct RunningProvider {
    pub provider: Arc<Provider>,
    pub endpoint: SocketAddr,
    /// Names of the models that it serves.
    pub models: Vec<String>,
    _tasks: Tasks,
}

/// How large the files of a package are, all of which the store has.
async fn package_bytes(store: &Arc<BlobStore>, cid: althing_content::Cid) -> Result<u64> {
    let store = store.clone();
    Ok(tokio::task::spawn_blocking(move || Package::bytes_in_store(&*store, &cid)).await??)
}

/// Starts a provider from its home. `engines` are those already in memory in this process; `upstreams` are servers
/// elsewhere beside those of the settings.
///
/// # Errors
/// If its files or address cannot be used, or none of its models can be loaded.
pub async fn start_provider(
    directory: &Path,
    settings: ProviderSettings,
    client: Arc<dyn LedgerClient>,
    listener: TcpListener,
    engines: &Engines,
    upstreams: &[UpstreamArg],
) -> Result<RunningProvider> {
    let store = Arc::new(settings.content.open(directory.join("content"))?);
    let store_private = Arc::new(settings.content.open(directory.join("private"))?);
    let serving = settings.content.gateway();
    let upstreams = Upstreams::new(&settings.upstreams, upstreams)?;
    let named = upstreams.by_model.keys().filter(|name| !settings.models.contains(name));
    let mut names: Vec<_> = settings.models.iter().chain(named).cloned().collect();
    let (sources, home) = (&settings.content_sources[..], directory);
    let found = Found { engines, store: &store, sources, upstreams: &upstreams, home };
    let models = models_to_serve(&*client, &names, &found).await?;
    let server = ModelServer::start(models.here, settings.server()).await;
    let ids: Vec<_> = server.models().chain(models.elsewhere.keys().copied()).collect();
    let left_out = server.left_out();
    if ids.is_empty() && !left_out.is_empty() {
        bail!(left_out.iter().map(|left| &*left.why).collect::<Vec<_>>().join("; "));
    }
    for left in left_out {
        eprintln!("note: {}; it is left out, and the others are served", left.why);
        names.retain(|name| *name != left.name);
    }
    let mut tasks = Tasks::default();
    for adapter in models.elsewhere.values() {
        let adapter = adapter.clone();
        tasks.add(async move { adapter.watch().await });
    }
    let key = SessionKeyPair::read(&directory.join("session.key"))?;
    let chain = client.status().await?.chain;
    let address = listener.local_addr()?;
    let endpoint = settings.endpoint.as_deref().and_then(|url| reqwest::Url::parse(url).ok());
    let endpoint = endpoint.and_then(|url| url.host_str().map(str::to_owned));
    warn_of_private(
        settings.sources_private,
        &[Some(address.ip().to_string()), endpoint].into_iter().flatten().collect::<Vec<_>>(),
    );
    let policy = settings.policy.policy(settings.profit());
    let endpoint = match settings.behaviour {
        // Liars take no chosen orders: those would simply fail.
        althing_provider::Behaviour::Liar => String::new(),
        althing_provider::Behaviour::Honest => settings.endpoint.unwrap_or_else(|| format!("http://{address}")),
    };
    let config = ProviderConfig {
        account: settings.account,
        models: ids,
        endpoint,
        behaviour: settings.behaviour,
        policy,
        watch_share: settings.watch_share,
        content_sources: settings.content_sources,
        sources_private: settings.sources_private,
        salt_seed: rand::random(),
    };
    let parts = althing_provider::Parts {
        client,
        clock: Arc::new(SystemClock),
        key,
        content: Arc::new(StoreContent(store.clone())),
        content_private: Arc::new(StoreContent(store_private)),
        compute: Arc::new(AllModels { here: server, elsewhere: models.elsewhere }),
        journal: Arc::new(FileJournal::open(directory.join("journal"))?),
    };
    let provider = Arc::new(Provider::new(config, chain, parts));
    serve(&mut tasks, listener, althing_provider::router(provider.clone(), store, serving));
    tasks.add({
        let provider = provider.clone();
        async move { provider.run().await }
    });
    Ok(RunningProvider { provider, endpoint: address, models: names, _tasks: tasks })
}

/// A gateway with its API.
pub struct RunningGateway {
    pub gateway: Arc<Gateway>,
    pub api: SocketAddr,
    _tasks: Tasks,
}

/// Starts a gateway from its home.
///
/// # Errors
/// If its files or address cannot be used.
pub async fn start_gateway(
    directory: &Path,
    settings: GatewaySettings,
    client: Arc<dyn LedgerClient>,
    listener: TcpListener,
    engines: Engines,
) -> Result<RunningGateway> {
    let store = Arc::new(settings.content.open(directory.join("content"))?);
    let serving = settings.content.gateway();
    let address = listener.local_addr()?;
    let content_url = settings.content_url(address);
    if let Some(url) = &content_url {
        url.check().with_context(|| format!("content_url {:?} in gateway.toml", url.as_str()))?;
    }
    let config = GatewayConfig {
        content_url,
        fee_open: settings.fee_open,
        fee_chosen: settings.fee_chosen,
        agreements: settings.agreements,
        answer_within_ms: settings.answer_within_ms,
        choice_seed: rand::random(),
        sources_private: settings.sources_private,
        providers_trusted: settings.providers_trusted,
        ..GatewayConfig::default()
    };
    let parts = althing_gateway::Parts {
        client,
        clock: Arc::new(SystemClock),
        content: Arc::new(StoreContent(store.clone())),
        deliveries: Arc::new(HttpDeliveries::new(!settings.sources_private)?),
        receipts: Arc::new(FileReceipts::open(directory.join("receipts"))?),
        packages: Arc::new(StorePackages(store.clone())),
        engines,
    };
    let gateway = Arc::new(Gateway::new(config, parts).await?);
    let keys = ApiKeys::read(&directory.join("api-keys.json"))?;
    let mut tasks = Tasks::default();
    let router =
        althing_gateway::router(gateway.clone(), keys).merge(althing_content::gateway::router_with(store, serving));
    serve(&mut tasks, listener, router);
    Ok(RunningGateway { gateway, api: address, _tasks: tasks })
}

/// How long a node that reached the last block of its program goes on telling others of it.
const LAST_BLOCK_FOR: Duration = Duration::from_secs(2);

/// Waits until the process is asked to end, or a node must not run the next block. (G-2)
///
/// # Errors
/// Why the node must stop.
pub async fn until_end(node: &NodeClient) -> Result<()> {
    tokio::select! {
        () = until_signal() => Ok(()),
        reason = node.node().halted() => {
            // Others may need this node's votes and certificates for the last block.
            tokio::time::sleep(LAST_BLOCK_FOR).await;
            Err(anyhow::Error::msg(reason))
        }
    }
}

/// Waits until the process is asked to end.
pub async fn until_signal() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminate.recv() => {} }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// A client of the node at `base`, which must answer.
///
/// # Errors
/// If it does not.
pub async fn connect(base: &str) -> Result<Arc<HttpClient>> {
    let client = HttpClient::new(base)?;
    client
        .status()
        .await
        .context("no node answers; start one with `althing dev` or `althing node`, or name another with --node")?;
    Ok(Arc::new(client))
}

/// Reads a provider's settings.
///
/// # Errors
/// If the file is absent or malformed.
pub fn provider_settings(directory: &Path) -> Result<ProviderSettings> {
    read_toml(&directory.join("provider.toml"))
}

/// Reads a gateway's settings.
///
/// # Errors
/// If the file is absent or malformed.
pub fn gateway_settings(directory: &Path) -> Result<GatewaySettings> {
    read_toml(&directory.join("gateway.toml"))
}

/// Where the role of a home serves its content.
///
/// # Errors
/// If it is the home of neither a gateway nor a provider, or names no address that can be asked.
pub fn content_url_of(directory: &Path) -> Result<ContentSource> {
    let url = if directory.join("gateway.toml").exists() {
        let settings = gateway_settings(directory)?;
        settings
            .content_url(settings.listen)
            .context("gateway.toml does not say where others reach it: set content_url")?
    } else {
        ContentSource(provider_settings(directory)?.url())
    };
    url.check().with_context(|| format!("{:?} in {}", url.as_str(), directory.display()))?;
    Ok(url)
}
