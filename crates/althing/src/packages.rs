//! `althing model pack|publish|pull|inspect`: packages as content, from files to the ledger and back.

use crate::{
    calls::send,
    cli::Wallet,
    commands::read_package,
    content::{Counting, PeerArgs, StoreArgs, fetch, write_car},
    near::is_near,
    output::{self, table},
    roles::{connect, package_pin},
};
use althing_content::{BlobStore, Cid, Profile, directory::list_at_most, disk::export, put_tree, read_file};
use althing_runtime::{
    Package,
    package::{Files, Manifest, PACKAGE_BYTES_MAX, PACKAGE_FILES_MAX},
};
use althing_types::{Address, Amount, Call, Model, Provider, Verification};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, Args)]
pub struct PackArgs {
    /// A package's directory, a directory of Hugging Face's files, or a GGUF file.
    path: PathBuf,
    /// Also write it out: an archive if it ends in .car, a directory otherwise. It must not exist yet.
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The name under which it is registered. Public, for good.
    name: String,
    /// A package's directory, a directory of Hugging Face's files, or a GGUF file.
    path: PathBuf,
    #[command(flatten)]
    terms: TermsArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// On what terms a model is registered, and by whom.
#[derive(Debug, Args)]
pub struct TermsArgs {
    /// The model's own fee of a run, in tokens.
    #[arg(long, default_value = "0")]
    fee: Amount,
    /// Who gets the fee; your account if absent.
    #[arg(long)]
    payee: Option<Address>,
    #[command(flatten)]
    wallet: Wallet,
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// Its CID, or with --node the name of a registered model, whose providers are asked for it.
    package: String,
    /// Write its files into this directory, which must not exist yet.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// URL of a node's API, to look the name up.
    #[arg(long, env = "ALTHING_NODE")]
    node: Option<String>,
    #[command(flatten)]
    peers: PeerArgs,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A package's directory, a model's files, or the CID of a package in the store.
    package: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// Puts a package into a store, where nothing drives it out.
pub fn keep(package: &Package, store: &Arc<BlobStore>) -> Result<Cid> {
    let adding = store.adding()?;
    let bar = output::bytes_bar(format!("adding {}", package.manifest.name), Some(package.bytes()));
    let files = package.files().iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let added = put_tree(&Counting { store: &adding, bar: &bar }, Profile::V1_2025, files);
    bar.finish_and_clear();
    let cid = added?.cid;
    store.pin(&package_pin(&cid), &cid)?;
    Ok(cid)
}

/// Makes a package and puts it into a store.
pub fn pack(args: &PackArgs, json: bool) -> Result<()> {
    let PackArgs { path, output, store } = args;
    if let Some(output) = output {
        ensure!(!output.exists(), "{} exists already", output.display());
    }
    let package = read_package(path)?;
    let store = store.open()?;
    let cid = keep(&package, &store)?;
    if let Some(output) = output {
        match output.extension().is_some_and(|extension| extension == "car") {
            true => drop(write_car(&store, &cid, false, output)?),
            false => drop(export(&*store, &cid, output, PACKAGE_BYTES_MAX, PACKAGE_FILES_MAX)?),
        }
    }
    let data =
        serde_json::json!({"cid": cid, "bytes": package.bytes(), "files": package.files().len(), "output": output});
    output::data(json, &data, |_| {
        println!("{cid}");
        eprintln!("{}: {} files, {} bytes", package.manifest.name, package.files().len(), package.bytes());
    })
}

/// Puts a package into a store and registers it on the ledger.
pub async fn publish(args: PublishArgs, json: bool) -> Result<()> {
    let PublishArgs { name, path, terms, store } = args;
    let package = read_package(&path)?;
    keep(&package, &store.open()?)?;
    eprintln!(
        "note: name, terms and package of a model are public; whoever serves {} serves its files",
        store.shown()?
    );
    register(name, &package, terms, json).await
}

/// Registers a package on the ledger.
pub async fn register(name: String, package: &Package, terms: TermsArgs, json: bool) -> Result<()> {
    let TermsArgs { fee, payee, wallet } = terms;
    let (package, verification) = (package.cid, verification(&package.manifest));
    let call = |account| Call::ModelRegister { name, package, fee, payee: payee.unwrap_or(account), verification };
    send(&wallet, json, call).await.map(drop)
}

/// What the ledger is told of a package.
pub fn verification(manifest: &Manifest) -> Verification {
    if manifest.is_exact() { Verification::Exact } else { Verification::None }
}

/// Who serves a model, as peers that may have its package.
fn endpoints(model: &Model, providers: Vec<Provider>) -> Vec<String> {
    let serving = providers.into_iter().filter(|provider| provider.models.contains(&model.id));
    serving.map(|provider| provider.endpoint).filter(|endpoint| !endpoint.is_empty()).collect()
}

async fn look_up(name: &str, node: &str, peers: &mut PeerArgs) -> Result<Cid> {
    use althing_sdk::LedgerClient as _;
    let client = connect(node).await?;
    let model = client.model(name).await.with_context(|| format!("the model {name}"))?;
    peers.add(endpoints(&model, client.providers().await?), is_near(node));
    Ok(model.package)
}

/// Brings a package into a store.
pub async fn pull(args: PullArgs, json: bool) -> Result<()> {
    let PullArgs { package, output, node, mut peers, store } = args;
    if let Some(output) = &output {
        ensure!(!output.exists(), "{} exists already", output.display());
    }
    let cid = match (package.parse::<Cid>(), &node) {
        (Ok(cid), _) => cid,
        (Err(_), Some(node)) => look_up(&package, node, &mut peers).await?,
        (Err(_), None) => bail!("{package:?} is no CID; to look a model's name up, say --node URL"),
    };
    peers.bound(PACKAGE_BYTES_MAX);
    let store = store.open()?;
    let adding = Arc::new(store.adding()?);
    let fetched = fetch(&adding, &peers, &cid).await?;
    // What is no package is not kept under the name of one.
    let (manifest, files) = contents(&store, &cid)?;
    store.pin(&package_pin(&cid), &cid)?;
    if let Some(output) = &output {
        export(&*store, &cid, output, PACKAGE_BYTES_MAX, PACKAGE_FILES_MAX)?;
    }
    let data = serde_json::json!({
        "cid": cid, "name": manifest.name, "files": files.len(), "bytes": fetched.bytes,
        "fetched_blocks": fetched.fetched_blocks, "fetched_bytes": fetched.fetched_bytes, "output": output,
    });
    output::data(json, &data, |_| {
        println!("{cid}");
        let (blocks, bytes) = (fetched.fetched_blocks, fetched.fetched_bytes);
        eprintln!("{}: {} files; {blocks} blocks, {bytes} bytes were fetched and checked", manifest.name, files.len());
    })
}

/// The manifest of a package in a store, and its files' sizes.
pub fn contents(store: &Arc<BlobStore>, cid: &Cid) -> Result<(Manifest, BTreeMap<String, u64>)> {
    let entries = list_at_most(&**store, cid, PACKAGE_FILES_MAX)
        .with_context(|| format!("{cid} is no package: it is no directory"))?;
    let manifest = entries.iter().find(|entry| entry.name == "model.toml");
    let manifest = manifest.with_context(|| format!("{cid} is no package: it has no model.toml"))?;
    let manifest = toml::from_slice(&read_file(&**store, &manifest.cid, 1 << 20)?).context("model.toml")?;
    let mut files = BTreeMap::new();
    for entry in entries {
        let size = match althing_content::read::stat(&**store, &entry.cid)? {
            althing_content::read::Object::File { size } => size,
            althing_content::read::Object::Directory => {
                bail!("{cid} is no package: {} is a directory, and packages are flat", entry.name)
            }
        };
        files.insert(entry.name, size);
    }
    Ok((manifest, files))
}

/// Says what a package is.
pub fn inspect(args: &InspectArgs, json: bool) -> Result<()> {
    let path = Path::new(&args.package);
    let (cid, manifest, files) = match args.package.parse::<Cid>() {
        Ok(cid) if !path.exists() => {
            let store = args.store.open()?;
            let (manifest, files) = contents(&store, &cid).with_context(|| {
                format!(
                    "the package {cid} in {}: `althing model pull` brings one there",
                    args.store.shown().unwrap_or_default()
                )
            })?;
            (cid, manifest, files)
        }
        _ => {
            ensure!(fs::exists(path)?, "{} is neither a file or directory nor a CID", args.package);
            let package = Package::from_path(path).with_context(|| format!("the package in {}", path.display()))?;
            let files = package.files().iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
            (package.cid, package.manifest, files)
        }
    };
    let bytes: u64 = files.values().sum();
    let data = serde_json::json!({"cid": cid, "manifest": manifest, "files": files, "bytes": bytes});
    output::data(json, &data, |_| {
        let verification = match manifest.verification.as_str() {
            "exact" => "exact: answers are the same on every machine, and can be checked",
            _ => "none: nobody can check its answers; chosen lane only",
        };
        for (name, value) in [
            ("cid", cid.to_string()),
            ("name", manifest.name.clone()),
            ("description", manifest.description.clone()),
            ("interface", manifest.interface.clone()),
            ("runtime", manifest.runtime.clone()),
            ("verification", verification.into()),
            ("licence", manifest.licence.clone()),
        ] {
            println!("{name:<13} {value}");
        }
        if let Files::Wasm(names) = &manifest.files {
            println!("{:<13} {}", "module", names.module);
        }
        println!();
        let rows: Vec<_> = files.iter().map(|(name, size)| vec![name.clone(), size.to_string()]).collect();
        table(&["FILE", "BYTES"], &rows);
    })
}
