//! `althing content`: files and directories by their names, in a store of one's own or of a role, moved in and out.

use crate::output::{self, table};
use althing_content::{
    BlobStore, BlockStore, Cid, CidError, Client, Fetched, Limits, Profile, Progress, ReadError, Scope, StoreError,
    Traversal, car, dag_pb,
    directory::{Entry, PATH_DEPTH_MAX},
    disk::{Adding, EXPORT_ENTRIES_MAX, GRACE, Usage, export, put_path},
    fetch_dag, fetch_path, fetch_scope, list, read, resolve,
};
use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use std::{
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// Most bytes that a command moves unless it is told otherwise: 1 TiB.
const BYTES_MAX: u64 = 1 << 40;

#[derive(Debug, Subcommand)]
pub enum ContentCommand {
    /// Add a file or a directory, and print its CID.
    Add {
        path: PathBuf,
        /// How files are cut and named. Other profiles give other CIDs.
        #[arg(long, value_enum, default_value = "unixfs-v1-2025")]
        profile: ProfileName,
        #[command(flatten)]
        pin: PinArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Write a file or a directory out, having fetched what is missing from peers.
    Get {
        /// CID, CID/PATH, /ipfs/CID/PATH or ipfs://CID/PATH.
        content: ContentPath,
        /// Where to: a file or directory that does not exist yet. Files go to stdout without it.
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
        #[command(flatten)]
        peers: PeerArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List a directory.
    List {
        /// CID, CID/PATH, /ipfs/CID/PATH or ipfs://CID/PATH.
        content: ContentPath,
        #[command(flatten)]
        peers: PeerArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Write everything below a CID into an archive (CARv1), depth first.
    Export {
        /// CID, CID/PATH, /ipfs/CID/PATH or ipfs://CID/PATH.
        content: ContentPath,
        /// The archive, a file that does not exist yet; `-` for stdout.
        #[arg(long, short, value_name = "FILE.car")]
        output: PathBuf,
        /// Write a block as often as it is linked, instead of once.
        #[arg(long)]
        dups: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Take the blocks of an archive (CARv1) in, and print its roots.
    Import {
        /// The archive; `-` for stdin.
        file: PathBuf,
        #[command(flatten)]
        pin: PinArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Keep everything below a CID, having fetched what is missing from peers.
    Pin {
        cid: Cid,
        /// The pin's name; the CID if absent.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        peers: PeerArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Take a pin away. Its content stays until it is collected.
    Unpin {
        /// The pin's name.
        name: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// List the pins.
    Pins {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Remove what no pin reaches.
    Gc {
        /// Leave what was put less than so many seconds ago.
        #[arg(long, value_name = "SECONDS", default_value_t = GRACE.as_secs())]
        grace: u64,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// What the store holds.
    Usage {
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Which store.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// A provider's or gateway's home: the content that it serves.
    #[arg(long, value_name = "DIR", conflicts_with = "store")]
    home: Option<PathBuf>,
    /// A store of your own. [default: althing/content in the user's data directory]
    #[arg(long, value_name = "DIR", env = "ALTHING_STORE")]
    store: Option<PathBuf>,
}

/// What is kept of what comes in.
#[derive(Clone, Debug, Args)]
pub struct PinArgs {
    /// The pin's name; the CID if absent.
    #[arg(long)]
    name: Option<String>,
    /// Do not pin it: it goes with the next collection.
    #[arg(long, conflicts_with = "name")]
    no_pin: bool,
}

/// Who is asked for what is missing.
#[derive(Clone, Debug, Args)]
pub struct PeerArgs {
    /// Base URL of a gateway that may have it: a provider, an Althing gateway or any trustless IPFS gateway. Can be given
    /// many times; nobody is believed.
    #[arg(long = "from", value_name = "URL")]
    from: Vec<String>,
    /// Those whom the ledger names.
    #[arg(skip)]
    strangers: Vec<String>,
    /// Most bytes that are fetched, those included that are here.
    #[arg(long, value_name = "BYTES", default_value_t = BYTES_MAX)]
    bytes_max: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProfileName {
    /// CIDv1, raw leaves, chunks of 1 MiB, 1024 links a node.
    #[value(name = "unixfs-v1-2025")]
    V1_2025,
    /// CIDv0, dag-pb leaves, chunks of 256 KiB, 174 links a node.
    #[value(name = "unixfs-v0-2015")]
    V0_2015,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::V1_2025 => Self::V1_2025,
            ProfileName::V0_2015 => Self::V0_2015,
        }
    }
}

/// A CID, and a path below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentPath {
    root: Cid,
    path: String,
}

impl FromStr for ContentPath {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        let text = ["/ipfs/", "ipfs://", "ipfs/"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        let (root, path) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self { root: root.parse()?, path: path.to_owned() })
    }
}

impl fmt::Display for ContentPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.root)?;
        if self.path.is_empty() { Ok(()) } else { write!(formatter, "/{}", self.path) }
    }
}

impl StoreArgs {
    fn directory(&self) -> Result<PathBuf> {
        if let Some(home) = &self.home {
            ensure!(home.is_dir(), "there is no home in {}", home.display());
            return Ok(home.join("content"));
        }
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
        let data = data.context("neither XDG_DATA_HOME nor HOME is set: name a store with --store")?;
        Ok(data.join("althing/content"))
    }

    /// The store; one that is not there yet is made.
    pub(crate) fn open(&self) -> Result<Arc<BlobStore>> {
        let directory = self.directory()?;
        let store = BlobStore::open(&directory);
        Ok(Arc::new(store.with_context(|| format!("the store in {}", directory.display()))?))
    }
}

impl StoreArgs {
    /// The home of the role that serves it, if that is how it was named.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Where it is, for people.
    pub(crate) fn shown(&self) -> Result<String> {
        Ok(self.directory()?.display().to_string())
    }
}

impl PinArgs {
    /// Pins what came in; the name of the pin.
    fn pin(&self, store: &BlobStore, cid: &Cid) -> Result<Option<String>> {
        if self.no_pin {
            return Ok(None);
        }
        let name = self.name.clone().unwrap_or_else(|| cid.to_string());
        store.pin(&name, cid).with_context(|| format!("cannot pin {cid}"))?;
        Ok(Some(name))
    }
}

impl PeerArgs {
    /// More of them, whom the ledger names; at public addresses only, unless the network is near.
    pub(crate) fn add(&mut self, urls: Vec<String>, is_near: bool) {
        if is_near { &mut self.from } else { &mut self.strangers }.extend(urls);
    }

    /// At most so many bytes.
    pub(crate) fn bound(&mut self, bytes_max: u64) {
        self.bytes_max = self.bytes_max.min(bytes_max);
    }

    fn clients(&self) -> Result<Vec<Client>> {
        let mut clients = self.from.iter().map(|url| Ok(Client::new(url)?)).collect::<Result<Vec<_>>>()?;
        for url in &self.strangers {
            match Client::of_stranger(url) {
                Ok(client) => clients.push(client),
                Err(error) => eprintln!("note: {url} is left: {error}"),
            }
        }
        Ok(clients)
    }

    fn limits(&self) -> Limits {
        Limits::bytes(self.bytes_max)
    }
}

/// Runs `althing content`.
///
/// # Errors
/// What a person can act on.
pub async fn run(command: ContentCommand, json: bool) -> Result<()> {
    match command {
        ContentCommand::Add { path, profile, pin, store } => add(&path, profile.into(), &pin, &store, json),
        ContentCommand::Get { content, output, peers, store } => {
            get(&content, output.as_deref(), &peers, &store, json).await
        }
        ContentCommand::List { content, peers, store } => list_directory(&content, &peers, &store, json).await,
        ContentCommand::Export { content, output, dups, store } => export_car(&content, &output, dups, &store, json),
        ContentCommand::Import { file, pin, store } => import_car(&file, &pin, &store, json),
        ContentCommand::Pin { cid, name, peers, store } => pin(&cid, name, &peers, &store, json).await,
        ContentCommand::Unpin { name, store } => {
            let was_there = store.open()?.unpin(&name)?;
            ensure!(was_there, "there is no pin {name:?}: `althing content pins` lists them");
            output::data(json, &serde_json::json!({ "unpinned": name }), |_| {
                eprintln!("{name} is pinned no longer; `althing content gc` frees its space");
            })
        }
        ContentCommand::Pins { store } => {
            let pins = store.open()?.pins()?;
            output::data(json, &pins, |pins| {
                let rows: Vec<_> = pins.iter().map(|(name, cid)| vec![name.clone(), cid.to_string()]).collect();
                table(&["NAME", "CID"], &rows);
            })
        }
        ContentCommand::Gc { grace, store } => collect(grace, &store, json),
        ContentCommand::Usage { store } => usage(&store, json),
    }
}

fn add(path: &Path, profile: Profile, pin: &PinArgs, store: &StoreArgs, json: bool) -> Result<()> {
    let size = size_of(path, 0).with_context(|| format!("cannot read {}", path.display()))?;
    let store = store.open()?;
    let adding = store.adding()?;
    let bar = output::bytes_bar(format!("adding {}", path.display()), Some(size));
    let imported = put_path(&Counting { store: &adding, bar: &bar }, profile, path);
    bar.finish_and_clear();
    let imported = imported?;
    let pin = pin.pin(&store, &imported.cid)?;
    let data = serde_json::json!({
        "cid": imported.cid, "file_bytes": imported.file_size, "dag_bytes": imported.dag_size, "pin": pin,
    });
    output::data(json, &data, |_| println!("{}", imported.cid))
}

/// Bytes of all files below a path, links not followed; only for a bar, so what cannot be read is left to the import.
fn size_of(path: &Path, depth: usize) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || depth > PATH_DEPTH_MAX {
        return Ok(metadata.len());
    }
    let entries = fs::read_dir(path)?.filter_map(Result::ok);
    Ok(entries.map(|entry| size_of(&entry.path(), depth + 1).unwrap_or(0)).sum())
}

/// A store whose puts move a bar.
pub(crate) struct Counting<'a> {
    pub(crate) store: &'a Adding,
    pub(crate) bar: &'a ProgressBar,
}

impl BlockStore for Counting<'_> {
    fn get(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(cid)
    }

    fn put(&self, cid: &Cid, block: &[u8]) -> Result<(), StoreError> {
        self.bar.inc(block.len() as u64);
        self.store.put(cid, block)
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        self.store.has(cid)
    }
}

/// Shows a fetch, and says what the peers did that failed.
pub(crate) async fn fetch(store: &Arc<Adding>, peers: &PeerArgs, cid: &Cid) -> Result<Fetched> {
    let clients = peers.clients()?;
    let bar = output::bytes_bar(format!("fetching {cid}"), None);
    let show = |progress: Progress| {
        if let Some(expected) = progress.bytes_expected {
            bar.set_length(expected.max(progress.bytes));
        }
        bar.set_position(progress.bytes);
    };
    let fetched = fetch_dag(store, &clients, cid, &peers.limits(), show).await;
    bar.finish_and_clear();
    let fetched = fetched.map_err(|error| explain(error.into(), peers))?;
    for peer in &fetched.peers {
        if let Some(failure) = &peer.failure {
            eprintln!("note: {} was left: {failure}", peer.url);
        }
    }
    Ok(fetched)
}

/// Adds what can be done to an error.
fn explain(error: anyhow::Error, peers: &PeerArgs) -> anyhow::Error {
    if peers.from.is_empty() {
        error.context("it is not all here: name peers that have it with --from URL")
    } else {
        error
    }
}

async fn find(store: &Arc<Adding>, peers: &PeerArgs, content: &ContentPath) -> Result<Cid> {
    let found = fetch_path(store, &peers.clients()?, &content.root, &content.path, &peers.limits()).await;
    found.map_err(|error| match error {
        althing_content::FetchError::Nowhere { .. } => explain(error.into(), peers),
        error => error.into(),
    })
}

async fn get(
    content: &ContentPath,
    target: Option<&Path>,
    peers: &PeerArgs,
    store: &StoreArgs,
    json: bool,
) -> Result<()> {
    ensure!(target.is_some() || !json, "with --json, --output says where the content goes");
    if let Some(target) = target {
        ensure!(!target.exists(), "{} exists already", target.display());
    }
    let store = store.open()?;
    // Until it is written out.
    let adding = Arc::new(store.adding()?);
    let cid = find(&adding, peers, content).await?;
    let fetched = fetch(&adding, peers, &cid).await?;
    let Some(target) = target else {
        if matches!(read::stat(&*store, &cid)?, read::Object::Directory) {
            bail!("{content} is a directory: --output says where it goes");
        }
        let mut out = output::stdout();
        read::copy_file(&*store, &cid, peers.bytes_max, &mut out)?;
        return Ok(out.flush()?);
    };
    let bytes = export(&*store, &cid, target, peers.bytes_max, EXPORT_ENTRIES_MAX)?;
    let data = serde_json::json!({
        "cid": cid, "output": target, "file_bytes": bytes, "blocks": fetched.blocks,
        "fetched_blocks": fetched.fetched_blocks, "fetched_bytes": fetched.fetched_bytes,
    });
    output::data(json, &data, |_| eprintln!("{cid} is in {}: {bytes} bytes", target.display()))
}

async fn list_directory(content: &ContentPath, peers: &PeerArgs, store: &StoreArgs, json: bool) -> Result<()> {
    let store = store.open()?;
    let adding = Arc::new(store.adding()?);
    let cid = find(&adding, peers, content).await?;
    let clients = peers.clients()?;
    // The whole of a file is not what was asked for.
    for scope in [Scope::Block, Scope::Entity] {
        let fetched = fetch_scope(&adding, &clients, &cid, scope, &peers.limits(), |_| {}).await;
        fetched.map_err(|error| explain(error.into(), peers))?;
        ensure!(read::stat(&*store, &cid)? == read::Object::Directory, "{content} is a file");
    }
    let entries = list(&*store, &cid)?;
    if json {
        let entry =
            |entry: &Entry| serde_json::json!({"name": entry.name, "cid": entry.cid, "dag_bytes": entry.dag_size});
        let entries: Vec<_> = entries.iter().map(entry).collect();
        return output::json(&serde_json::json!({"cid": cid, "entries": entries}));
    }
    let row = |entry: &Entry| vec![entry.name.clone(), entry.dag_size.to_string(), entry.cid.to_string()];
    table(&["NAME", "BYTES WITH ALL BELOW", "CID"], &entries.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn export_car(content: &ContentPath, target: &Path, dups: bool, store: &StoreArgs, json: bool) -> Result<()> {
    let is_stdout = target == Path::new("-");
    ensure!(!(is_stdout && json), "with --json, --output names a file");
    let store = store.open()?;
    let cid = resolve(&*store, &content.root, &content.path)?;
    let summary = write_car(&store, &cid, dups, target)?;
    let data = serde_json::json!({
        "cid": cid, "output": target, "blocks": summary.blocks, "block_bytes": summary.bytes,
    });
    output::data(json, &data, |_| eprintln!("{} blocks of {cid}, {} bytes", summary.blocks, summary.bytes))
}

/// Writes an archive of everything below a CID into a file that does not exist yet; `-` for stdout.
pub(crate) fn write_car(store: &BlobStore, cid: &Cid, dups: bool, target: &Path) -> Result<car::Summary> {
    let bar = output::bytes_bar(format!("exporting {cid}"), dag_size(store, cid));
    let write = |target: &mut dyn Write| car::export(store, cid, dups, BYTES_MAX, target, |bytes| bar.inc(bytes));
    let summary = if target == Path::new("-") {
        write(&mut output::stdout())
    } else {
        let file = File::create_new(target).with_context(|| format!("cannot write {}", target.display()))?;
        let written = write(&mut io::BufWriter::new(&file));
        let written = written.and_then(|summary| file.sync_all().map_err(car::CarError::Target).map(|()| summary));
        // A part of an archive looks like a whole one.
        written.inspect_err(|_| drop(fs::remove_file(target)))
    };
    bar.finish_and_clear();
    Ok(summary?)
}

/// Bytes of everything below, as the root says.
fn dag_size(store: &BlobStore, cid: &Cid) -> Option<u64> {
    dag_pb::dag_size(cid, &store.get(cid).ok()??)
}

fn import_car(file: &Path, pin: &PinArgs, store: &StoreArgs, json: bool) -> Result<()> {
    let is_stdin = file == Path::new("-");
    let (source, size): (Box<dyn Read>, _) = if is_stdin {
        (Box::new(io::stdin().lock()), None)
    } else {
        let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        let size = opened.metadata().ok().map(|metadata| metadata.len());
        (Box::new(opened), size)
    };
    let store = store.open()?;
    let adding = store.adding()?;
    let bar = output::bytes_bar(format!("importing {}", file.display()), size);
    let summary = car::import(&adding, source, BYTES_MAX, |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let summary = summary?;
    let mut pins = Vec::new();
    if pin.name.is_some() && summary.roots.len() != 1 {
        bail!("the archive has {} roots, one name is not enough: its blocks are here", summary.roots.len());
    }
    let incomplete = "the archive does not hold everything below its root";
    for root in summary.roots.iter().filter(|_| !pin.no_pin) {
        // Some of it may have been here before: what is pinned was looked at.
        for block in Traversal::open(&adding, root, "", Scope::All, false).context(incomplete)? {
            block.context(incomplete)?;
        }
        pins.extend(pin.pin(&store, root).context(incomplete)?);
    }
    let data = serde_json::json!({
        "roots": summary.roots, "blocks": summary.blocks, "block_bytes": summary.bytes, "pins": pins,
    });
    output::data(json, &data, |_| {
        summary.roots.iter().for_each(|root| println!("{root}"));
        eprintln!("{} blocks, {} bytes", summary.blocks, summary.bytes);
    })
}

async fn pin(cid: &Cid, name: Option<String>, peers: &PeerArgs, store: &StoreArgs, json: bool) -> Result<()> {
    let store = store.open()?;
    let adding = Arc::new(store.adding()?);
    let fetched = fetch(&adding, peers, cid).await?;
    let name = name.unwrap_or_else(|| cid.to_string());
    store.pin(&name, cid)?;
    let data = serde_json::json!({
        "cid": cid, "pin": name, "blocks": fetched.blocks, "bytes": fetched.bytes,
        "fetched_blocks": fetched.fetched_blocks, "fetched_bytes": fetched.fetched_bytes,
    });
    output::data(json, &data, |_| eprintln!("{} blocks, {} bytes are kept as {name}", fetched.blocks, fetched.bytes))
}

fn collect(grace: u64, store: &StoreArgs, json: bool) -> Result<()> {
    let store = store.open()?;
    let bar = output::spinner("looking for what no pin reaches");
    let collected = store.collect_garbage(Duration::from_secs(grace));
    bar.finish_and_clear();
    let collected = collected.map_err(|error| match error {
        ReadError::Store(StoreError::Corrupt { cid }) => {
            anyhow::anyhow!("block {cid} of a pin is damaged, so nobody knows what lies below it: fetch it again with `althing content pin CID --from URL`, or unpin it")
        }
        error => error.into(),
    })?;
    let data = serde_json::json!({"blocks": collected.blocks, "bytes": collected.bytes});
    output::data(json, &data, |_| println!("{} blocks, {} bytes", collected.blocks, collected.bytes))
}

fn usage(store: &StoreArgs, json: bool) -> Result<()> {
    let (directory, usage) = (store.directory()?, store.open()?.usage()?);
    let Usage { blocks, bytes, pins, pinned_blocks, pinned_bytes, missing_blocks, .. } = usage;
    let data = serde_json::json!({
        "store": directory, "blocks": blocks, "bytes": bytes, "pins": pins, "pinned_blocks": pinned_blocks,
        "pinned_bytes": pinned_bytes, "missing_blocks": missing_blocks,
    });
    output::data(json, &data, |_| {
        println!("store     {}", directory.display());
        println!("all       {blocks} blocks, {bytes} bytes");
        println!("pinned    {pinned_blocks} blocks, {pinned_bytes} bytes, by {pins} pins");
        println!("unpinned  {} blocks, {} bytes", blocks - pinned_blocks, bytes - pinned_bytes);
        if missing_blocks > 0 {
            println!("missing   {missing_blocks} blocks of pins are not here");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_named_as_in_urls_and_on_gateways() {
        let cid = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
        for (text, path) in [
            (cid.to_owned(), ""),
            (format!("{cid}/"), ""),
            (format!("{cid}/a/b"), "a/b"),
            (format!("/ipfs/{cid}/a b"), "a b"),
            (format!("ipfs://{cid}/a"), "a"),
        ] {
            let content: ContentPath = text.parse().expect("a path");
            assert_eq!((content.root.to_string().as_str(), content.path.as_str()), (cid, path), "{text}");
        }
        for text in ["", "/", "/ipfs/", "nonsense", "/ipns/name", "https://host/ipfs/x"] {
            assert!(text.parse::<ContentPath>().is_err(), "{text}");
        }
    }
}
