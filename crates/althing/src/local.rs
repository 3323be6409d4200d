//! `althing model run`: a model from its files, without a network.

use crate::output;
use althing_runtime::{
    ChatInput, Engine as _, ImageInput, Interface, Package, SpeechInput,
    local::{
        FinishReason, Level, LocalEmbeddingModel, LocalModel, LocalRequest, LocalRun, LocalTranscript, Plan, Sampling,
        logits_digest,
    },
    media::IMAGE_SIDE_DEFAULT,
    package::{Files, Manifest},
    wasm::{RefusalOutput, WasmEngine},
};
use anyhow::{Context as _, Result};
use clap::Args;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How a model is computed; never what it gives.
#[derive(Debug, Args)]
struct PlanArgs {
    /// Threads. [default: all]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Instructions: auto, avx512, avx2, sse2, neon, simd128 or scalar. They change the speed, never a bit.
    #[arg(long, default_value = "auto")]
    level: Level,
}

impl PlanArgs {
    fn plan(&self) -> Plan {
        Plan::at(self.level, self.threads.map_or_else(threads_of_machine, usize::from))
    }
}

/// `model run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A GGUF file, a directory with config.json, tokenizer.json and *.safetensors, or a package.
    path: PathBuf,
    /// What the model is to continue; with --chat, a user's message.
    #[arg(long, required_unless_present = "input")]
    prompt: Option<String>,
    /// What a model of the JSON interface is given.
    #[arg(long, value_name = "JSON", conflicts_with = "prompt")]
    input: Option<String>,
    /// Where the picture or sound of such a model goes; `-` for stdout.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the prompt as the model's own template does.
    #[arg(long)]
    chat: bool,
    /// Everything random in the answer follows from it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most tokens of the answer.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// 0 takes the likeliest token always. [default: the package's, or 0]
    #[arg(long)]
    temperature: Option<f32>,
    /// Only this many likeliest tokens; 0 for all. [default: the package's, or 0]
    #[arg(long)]
    top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities reach this sum. [default: the package's, or 1]
    #[arg(long)]
    top_p: Option<f32>,
    /// Only tokens at least this much as likely as the likeliest. [default: 0]
    #[arg(long)]
    min_p: Option<f32>,
    /// A text that ends the answer; may be given again.
    #[arg(long)]
    stop: Vec<String>,
    #[command(flatten)]
    plan: PlanArgs,
    /// Write a transcript that whoever has the model can check with `model check`.
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
}

/// `model check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A GGUF file, a directory with config.json, tokenizer.json and *.safetensors, or a package.
    path: PathBuf,
    /// What `model run --transcript` wrote, on any machine.
    transcript: PathBuf,
    #[command(flatten)]
    plan: PlanArgs,
}

/// `model embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// A GGUF file, a directory of Hugging Face's files, or a package, of a BERT-family model.
    path: PathBuf,
    /// Texts, a vector for each.
    #[arg(required = true)]
    texts: Vec<String>,
    #[command(flatten)]
    plan: PlanArgs,
}

/// `bench model`.
#[derive(Debug, Args)]
pub struct BenchModelArgs {
    /// A GGUF file, a directory with config.json, tokenizer.json and *.safetensors, or a package.
    path: PathBuf,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Answers that are made at once.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Measures how fast a model is here.
///
/// # Errors
/// If the files cannot be used, or the model's context is shorter.
pub fn bench(args: BenchModelArgs, json: bool) -> Result<()> {
    let plan = args.plan.plan();
    let spinner = output::spinner(format!("measuring {}", args.path.display()));
    let started = Instant::now();
    let model = LocalModel::open(&args.path)?;
    let load = started.elapsed();
    let speed = model.measure(args.prompt_tokens, args.tokens, args.batch, &plan)?;
    let weights_bytes = model.weights_bytes();
    let serving = model.measure_serving(args.tokens, args.batch, &plan)?;
    spinner.finish_and_clear();
    let (level, threads) = (plan.level.to_string(), plan.pool.threads());
    let figures = serde_json::json!({
        "prefill_tokens_per_second": speed.prefill,
        "decode_tokens_per_second": speed.decode,
        "trace_part_of_decode": speed.trace_part,
        "decode_batched_tokens_per_second": speed.decode_batched,
        "runs_in_turn_tokens_per_second": serving.in_turn,
        "runs_together_tokens_per_second": serving.together,
        "batch": args.batch,
        "prompt_tokens": args.prompt_tokens,
        "tokens": args.tokens,
        "load_seconds": load.as_secs_f64(),
        "weights_bytes": weights_bytes,
        "memory_peak_bytes": memory_peak_bytes(),
        "level": level,
        "threads": threads,
    });
    output::data(json, &figures, |_| {
        println!("prefill  {:.1} tokens/s", speed.prefill);
        println!("decode   {:.1} tokens/s", speed.decode);
        println!("traces   {:.2} % of the decode's time", 100.0 * speed.trace_part);
        println!("batched  {:.1} tokens/s, {} answers at once", speed.decode_batched, args.batch);
        let (in_turn, together) = (serving.in_turn, serving.together);
        println!("served   {together:.1} tokens/s, {} runs together; {in_turn:.1} in turn", args.batch);
        println!("{level} on {threads} threads, loaded in {:.2} s", load.as_secs_f64());
    })
}

/// Runs a model and says what it answered, how fast, and with which bits.
///
/// # Errors
/// If the files cannot be used, or the prompt does not fit.
pub fn run(args: RunArgs, json: bool) -> Result<()> {
    let sampling_fits = args.temperature.is_none_or(|t| (0.0..=100.0).contains(&t))
        && args.top_p.is_none_or(|p| p > 0.0 && p <= 1.0)
        && args.min_p.is_none_or(|p| (0.0..=1.0).contains(&p));
    anyhow::ensure!(sampling_fits, "--temperature is at least 0, --top-p above 0 and up to 1, --min-p from 0 to 1");
    let plan = args.plan.plan();
    if let Some(package) = guest(&args.path)? {
        return run_guest(&package, args, plan, json);
    }
    anyhow::ensure!(args.input.is_none(), "--input is for models of the JSON interface: this one takes a --prompt");
    let spinner = output::spinner(format!("loading {}", args.path.display()));
    let started = Instant::now();
    let model = LocalModel::open(&args.path);
    spinner.finish_and_clear();
    let model = model?;
    let load = started.elapsed();
    let defaults = model.sampling();
    let request = LocalRequest {
        prompt: args.prompt.unwrap_or_default(),
        chat: args.chat,
        seed: args.seed,
        max_tokens: args.max_tokens as usize,
        sampling: Sampling {
            temperature: args.temperature.unwrap_or(defaults.temperature),
            top_k: args.top_k.unwrap_or(defaults.top_k),
            top_p: args.top_p.unwrap_or(defaults.top_p),
            min_p: args.min_p.unwrap_or(defaults.min_p),
            ..defaults
        },
        stop: args.stop,
    };
    let mut stdout = std::io::stdout();
    let answer = model.run(&request, &plan, |piece| {
        // Whoever stopped reading wants no more.
        json || (write!(stdout, "{piece}").is_ok() && stdout.flush().is_ok())
    })?;
    if let Some(path) = &args.transcript {
        let text = serde_json::to_string_pretty(&answer.transcript)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    report(&answer, &model, load, &plan, json)
}

/// The package of a guest, if that is what a path has.
fn guest(path: &Path) -> Result<Option<Package>> {
    let Ok(manifest) = std::fs::read(path.join("model.toml")) else { return Ok(None) };
    let manifest: Manifest = toml::from_slice(&manifest).context("model.toml")?;
    match manifest.files {
        Files::Wasm(_) => Ok(Some(Package::from_path(path)?)),
        _ => Ok(None),
    }
}

/// Runs a guest and says what it answered, and what it used.
fn run_guest(package: &Package, args: RunArgs, plan: Plan, json: bool) -> Result<()> {
    anyhow::ensure!(args.transcript.is_none(), "guests have no transcripts: their outputs are compared as a whole");
    let spinner = output::spinner(format!("loading {}", args.path.display()));
    let engine = WasmEngine::load(package, plan);
    spinner.finish_and_clear();
    let engine = engine?;
    let is_file = matches!(engine.interface(), Interface::Image | Interface::Speech);
    anyhow::ensure!(
        is_file || args.output.is_none(),
        "--output is for pictures and sounds: this model's answers go to stdout"
    );
    let prompt = args.prompt.unwrap_or_default();
    let input = match (engine.interface(), args.input) {
        (Interface::Json | Interface::Image | Interface::Speech, Some(input)) => input.into_bytes(),
        (Interface::Json | Interface::Embedding, None) => anyhow::bail!("this model takes JSON: say --input '…'"),
        (Interface::Image, None) => {
            ImageInput { prompt, width: IMAGE_SIDE_DEFAULT, height: IMAGE_SIDE_DEFAULT }.to_bytes()
        }
        (Interface::Speech, None) => {
            SpeechInput { text: prompt, voice: None, format: None, speed: None, instructions: None }.to_bytes()
        }
        (_, Some(_)) => anyhow::bail!("--input is for models of the JSON interface: this one takes a --prompt"),
        (Interface::Chat, None) => ChatInput {
            max_tokens: Some(args.max_tokens),
            temperature: args.temperature,
            top_p: args.top_p,
            stop: args.stop,
            ..ChatInput::ask(&prompt)
        }
        .to_bytes(),
    };
    let target = match (is_file, &args.output) {
        (true, None) => anyhow::bail!("this model gives a file: say where it goes, --output FILE, or `-` for stdout"),
        (true, Some(path)) => Some(path.clone()),
        (false, _) => None,
    };
    let mut stdout = std::io::stdout();
    let started = Instant::now();
    let ran = engine.run_metered(&input, args.seed, &mut |piece| {
        json || (write!(stdout, "{piece}").is_ok() && stdout.flush().is_ok())
    })?;
    let took = started.elapsed();
    if let Some(RefusalOutput { error }) = RefusalOutput::parse(&ran.output).filter(|_| !json) {
        anyhow::bail!("{}: {}", error.code, error.message);
    }
    let output = match target {
        Some(target) if RefusalOutput::parse(&ran.output).is_none() => {
            write_file(&target, &ran.output)?;
            serde_json::json!({"file": target, "bytes": ran.output.len()})
        }
        _ => serde_json::from_slice(&ran.output)?,
    };
    if json {
        return output::json(&serde_json::json!({
            "output": output, "fuel": ran.fuel, "init_fuel": engine.init_fuel(), "seconds": took.as_secs_f64(),
            "log": engine.log(),
        }));
    }
    match engine.interface() {
        Interface::Json => println!("{output}"),
        Interface::Chat | Interface::Embedding => println!(),
        Interface::Image | Interface::Speech => eprintln!("file       {} bytes", ran.output.len()),
    }
    if !engine.log().is_empty() {
        eprintln!("log        {}", engine.log().trim_end());
    }
    let fuel = ran.fuel.map_or("-".into(), |fuel| fuel.to_string());
    eprintln!("fuel       {fuel}, and {} of init", engine.init_fuel());
    eprintln!("time       {:.3} s", took.as_secs_f64());
    Ok(())
}

/// Writes a picture or a sound, into a file that does not exist yet or to stdout.
fn write_file(target: &Path, bytes: &[u8]) -> Result<()> {
    if target == Path::new("-") {
        return Ok(output::stdout().write_all(bytes)?);
    }
    let file = std::fs::File::create_new(target);
    file.and_then(|mut file| file.write_all(bytes)).with_context(|| format!("cannot write {}", target.display()))
}

/// Checks a transcript.
///
/// # Errors
/// If the files cannot be used, or what about the transcript is not what the model gives.
pub fn check(args: CheckArgs, json: bool) -> Result<()> {
    let name = args.transcript.display();
    let text = std::fs::read_to_string(&args.transcript).with_context(|| format!("cannot read {name}"))?;
    let transcript: LocalTranscript =
        serde_json::from_str(&text).with_context(|| format!("{name} is not what `model run --transcript` writes"))?;
    let plan = args.plan.plan();
    let spinner = output::spinner(format!("checking {name}"));
    let model = LocalModel::open(&args.path)?;
    let started = Instant::now();
    let checked = model.check(&transcript, &plan);
    let took = started.elapsed();
    spinner.finish_and_clear();
    checked.with_context(|| format!("{name} is not an answer of {}", args.path.display()))?;
    let figures = serde_json::json!({
        "tokens": transcript.tokens.len(),
        "trace_root": transcript.trace_root,
        "seconds": took.as_secs_f64(),
    });
    output::data(json, &figures, |_| {
        println!("right: {} tokens, trace root {}", transcript.tokens.len(), transcript.trace_root);
        eprintln!("checked in {:.2} s", took.as_secs_f64());
    })
}

/// Makes vectors of texts.
///
/// # Errors
/// If the files cannot be used, or a text does not fit.
pub fn embed(args: EmbedArgs, json: bool) -> Result<()> {
    let plan = args.plan.plan();
    let spinner = output::spinner(format!("loading {}", args.path.display()));
    let model = LocalEmbeddingModel::open(&args.path);
    spinner.finish_and_clear();
    let model = model?;
    let started = Instant::now();
    let (embeddings, trace_root) = model.embed(&args.texts, &plan)?;
    let took = started.elapsed();
    let vectors: Vec<_> =
        embeddings.vectors.iter().map(|vector| (vector, hex::encode(logits_digest(vector)))).collect();
    let figures = serde_json::json!({
        "embeddings": vectors.iter().map(|(vector, digest)| serde_json::json!({"vector": vector, "digest": digest}))
            .collect::<Vec<_>>(),
        "prompt_tokens": embeddings.tokens,
        "trace_root": trace_root,
        "seconds": took.as_secs_f64(),
        "weights_bytes": model.weights_bytes(),
        "level": plan.level.to_string(),
        "threads": plan.pool.threads(),
    });
    output::data(json, &figures, |_| {
        for (vector, digest) in &vectors {
            let first: Vec<_> = vector.iter().take(4).map(|x| format!("{x:.4}")).collect();
            println!("{} … ({} numbers, digest {digest})", first.join(" "), vector.len());
        }
        if let [(first, _), rest @ ..] = &vectors[..] {
            for (index, (vector, _)) in (2..).zip(rest) {
                println!("text 1 and text {index} are {:.3} alike", cosine(first, vector));
            }
        }
        eprintln!("{} tokens in {:.3} s", embeddings.tokens, took.as_secs_f64());
    })
}

/// How alike two vectors are, from -1 to 1.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn report(answer: &LocalRun, model: &LocalModel, load: Duration, plan: &Plan, json: bool) -> Result<()> {
    let prefill = per_second(answer.prompt_tokens, answer.prefill);
    let decode = per_second(answer.decode_tokens, answer.decode);
    let digest = hex::encode(answer.logits_digest);
    let (level, threads) = (plan.level.to_string(), plan.pool.threads());
    let memory = memory_peak_bytes();
    if json {
        return output::json(&serde_json::json!({
            "text": answer.text,
            "finish_reason": match answer.finish_reason { FinishReason::Stop => "stop", FinishReason::Length => "length" },
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "prefill_tokens_per_second": prefill,
            "decode_tokens_per_second": decode,
            "load_seconds": load.as_secs_f64(),
            "weights_bytes": model.weights_bytes(),
            "memory_peak_bytes": memory,
            "level": level,
            "threads": threads,
            "logits_digest": digest,
            "trace_root": answer.transcript.trace_root,
        }));
    }
    println!();
    let speed = |rate: Option<f64>| rate.map_or("-".into(), |rate| format!("{rate:.1} tokens/s"));
    eprintln!(
        "\nprefill {} tokens, {}; decode {} tokens, {}",
        answer.prompt_tokens,
        speed(prefill),
        answer.completion_tokens,
        speed(decode)
    );
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let weights = mebibytes(model.weights_bytes() as u64);
    let memory = memory.map_or("unknown".into(), mebibytes);
    eprintln!("loaded in {:.2} s; weights {weights}, memory at most {memory}", load.as_secs_f64());
    eprintln!("{level} on {threads} threads; digest of all logits {digest}");
    Ok(())
}

fn per_second(tokens: usize, took: Duration) -> Option<f64> {
    #[allow(clippy::cast_precision_loss)] // contexts are below 2^20
    let rate = tokens as f64 / took.as_secs_f64();
    (tokens > 0 && rate.is_finite()).then_some(rate)
}

/// Threads of this machine, 1 if it does not tell.
pub fn threads_of_machine() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The most memory that this process ever had, where the system tells.
fn memory_peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}
