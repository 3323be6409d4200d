//! Heavy mathematics for guests: the strict kernels, on weights that stay outside the guest's memory.
//!
//! A guest opens tensors of its package's weights, rotary positions, and memories of keys and values, and
//! has vectors of its own memory go through them. What is opened in `init` is there in every run. The bits
//! are the engines' (`althing_exact::kernels`); every NaN that comes back has the one form that guests see.

use crate::{
    guest::Failure,
    host::{Call, Files, Host, Task, charge, fail, memory, range, spend},
};
use althing_exact::{
    Plan, RopeConfig, RopePairs,
    kernels::{self, Activation, Activations, Matrix, Memory, Rotary, Sampler, Sampling},
};
use std::{collections::BTreeMap, ops::Range, sync::Arc};
use wasmtime::Linker;

type Result<T, E = wasmtime::Error> = std::result::Result<T, E>;

/// Products that one unit of fuel pays for.
const PRODUCTS_PER_FUEL: u64 = 8;
/// Most rows that go through a kernel at once.
const ROWS_MAX: u32 = 1 << 16;
/// Most matrices of one product.
const MATRICES_MAX: u32 = 8;
/// Most samplers, and most rotary positions and memories together.
const OPEN_MAX: usize = 1 << 10;
/// Kernels take so many rows of a matrix at a time, and room is made for as many: one row takes as much as sixteen.
const ROWS_TOGETHER: u64 = 16;
/// Fuel for each number of rotary positions: a sine or cosine.
const ROTARY_FUEL: u64 = 32;
/// Longest name of a tensor, bytes.
const NAME_BYTES_MAX: u32 = 1 << 10;
/// Most layers, heads, and elements of a head: far beyond any model.
const DIM_MAX: u32 = 1 << 14;
const CONTEXT_MAX: u32 = 1 << 24;

/// What guests hold handles of. Copies share what is large.
#[derive(Clone)]
enum Opened {
    Tensor(Arc<Tensor>),
    Rotary(Arc<Rotary>),
    Memory(Box<Memory>),
}

struct Tensor {
    matrix: Matrix,
    /// The elements, if it has one row.
    vector: Option<Vec<f32>>,
}

/// What a guest has opened, and the memory that its calls work in.
pub(crate) struct Kernels {
    plan: Plan,
    opened: Vec<Opened>,
    /// Handles of tensors, by name: each is opened once. Runs share those of `init`.
    tensors: Arc<BTreeMap<String, u32>>,
    samplers: Vec<Sampler>,
    /// What memories and rotary positions take, and tensors beyond the package's own bytes.
    cache_bytes: u64,
    /// What tensors take, bytes.
    tensor_bytes: u64,
    x: Activations,
    scratch: [Vec<f32>; 3],
}

impl Kernels {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            opened: Vec::new(),
            tensors: Arc::default(),
            samplers: Vec::new(),
            cache_bytes: 0,
            tensor_bytes: 0,
            x: Activations::default(),
            scratch: Default::default(),
        }
    }

    /// What `init` opened, for a run.
    pub(crate) fn for_run(&self) -> Self {
        Self {
            opened: self.opened.clone(),
            tensors: self.tensors.clone(),
            cache_bytes: self.cache_bytes,
            tensor_bytes: self.tensor_bytes,
            ..Self::new(self.plan.clone())
        }
    }

    /// Memory that the weights take, bytes.
    pub(crate) fn weights_bytes(&self) -> u64 {
        let bytes = |opened: &Opened| match opened {
            Opened::Tensor(tensor) => {
                let vector = tensor.vector.as_ref().map_or(0, |vector| size_of_val(&vector[..]));
                (tensor.matrix.bytes() + vector) as u64
            }
            _ => 0,
        };
        self.opened.iter().map(bytes).sum()
    }

    fn get(&self, handle: u32) -> Result<&Opened> {
        match self.opened.get(handle as usize) {
            Some(opened) => Ok(opened),
            None => fail(Failure::BadHandle),
        }
    }

    fn tensor(&self, handle: u32) -> Result<Arc<Tensor>> {
        match self.get(handle)? {
            Opened::Tensor(tensor) => Ok(tensor.clone()),
            _ => fail(Failure::BadHandle),
        }
    }

    fn add(&mut self, opened: Opened) -> u32 {
        self.opened.push(opened);
        u32::try_from(self.opened.len() - 1).expect("there are few")
    }
}

/// Takes the fuel of a call that works on so many elements and makes so many products.
fn pay(call: &mut Call<'_>, elements: u64, products: u64) -> Result<()> {
    let fuel = elements.saturating_mul(4).saturating_add(products.div_ceil(PRODUCTS_PER_FUEL));
    charge(call, fuel)
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

/// The range of so many f32s in the guest's memory.
fn floats(memory: &[u8], start: u32, count: u64) -> Result<Range<usize>> {
    match u32::try_from(count.saturating_mul(4)) {
        Ok(len) if start.is_multiple_of(4) => range(memory, start, len),
        _ => fail(Failure::BadAddress),
    }
}

/// Memory as f32s: it begins at a page, and its ranges are checked to begin at multiples of four.
fn as_floats(bytes: &mut [u8]) -> &mut [f32] {
    bytemuck::cast_slice_mut(bytes)
}

fn read_floats(bytes: &[u8]) -> &[f32] {
    bytemuck::cast_slice(bytes)
}

/// Two ranges of memory that have nothing in common.
fn two(memory: &mut [u8], one: Range<usize>, other: Range<usize>) -> Result<[&mut [f32]; 2]> {
    match memory.get_disjoint_mut([one, other]) {
        Ok(parts) => Ok(parts.map(as_floats)),
        Err(_) => fail(Failure::BadAddress),
    }
}

/// NaNs have one form: what machines make of them differs.
fn canonical(values: &mut [f32]) {
    for value in values {
        if value.is_nan() {
            *value = f32::from_bits(0x7fc0_0000);
        }
    }
}

fn rows_fit(rows: u32) -> Result<u64> {
    if rows == 0 || rows > ROWS_MAX { fail(Failure::BadShape) } else { Ok(rows.into()) }
}

fn tensor_open(mut call: Call<'_>, start: u32, len: u32) -> Result<i32> {
    pay(&mut call, len.into(), 0)?;
    if len > NAME_BYTES_MAX {
        return Ok(-1);
    }
    let (memory, host) = memory(&mut call);
    let Ok(name) = std::str::from_utf8(&memory[range(memory, start, len)?]) else { return Ok(-1) };
    if let Some(handle) = host.kernels.tensors.get(name) {
        return Ok(handle.cast_signed());
    }
    let name = name.to_owned();
    let files: Arc<Files> = host.files.clone();
    let Some((place, bytes)) = files.tensor(&name) else { return Ok(-1) };
    // What it costs to read and pack it, and what it takes from then on.
    let taken = tensor_bytes(place.rows, place.columns, bytes.len());
    spend(&mut call, taken)?;
    let host = call.data_mut();
    let counted = (host.kernels.cache_bytes, host.kernels.tensor_bytes);
    keep_tensor(host, taken)?;
    let Ok(matrix) = Matrix::pack(place.format, place.rows, place.columns, bytes) else {
        let kernels = &mut call.data_mut().kernels;
        (kernels.cache_bytes, kernels.tensor_bytes) = counted;
        return Ok(-1);
    };
    let vector = (place.rows == 1).then(|| {
        let mut vector = vec![0.0; place.columns];
        matrix.row(0, &mut vector);
        vector
    });
    let kernels = &mut call.data_mut().kernels;
    let handle = kernels.add(Opened::Tensor(Arc::new(Tensor { matrix, vector })));
    Arc::make_mut(&mut kernels.tensors).insert(name, handle);
    Ok(handle.cast_signed())
}

/// What a tensor of so many bytes takes once it is opened: its rows, rounded up to those that are computed together,
/// and its elements beside, if it is a vector.
fn tensor_bytes(rows: usize, columns: usize, bytes: usize) -> u64 {
    let (rows, columns, bytes) = (rows as u64, columns as u64, bytes as u64);
    let padded = bytes.div_ceil(rows.max(1)).saturating_mul(rows.next_multiple_of(ROWS_TOGETHER));
    padded.saturating_add(if rows == 1 { columns.saturating_mul(4) } else { 0 })
}

/// Counts a tensor. What is opened before any run may take as many bytes as the weights have in their files, for which
/// whoever loads the package makes room; all else counts like caches.
fn keep_tensor(host: &mut Host, bytes: u64) -> Result<()> {
    let free = if host.task.is_none() { host.files.weights_bytes() } else { 0 };
    let before = host.kernels.tensor_bytes;
    let after = before.saturating_add(bytes);
    host.kernels.tensor_bytes = after;
    keep(host, after.saturating_sub(free) - before.saturating_sub(free))
}

fn size(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn tensor_rows(call: Call<'_>, tensor: u32) -> Result<u32> {
    Ok(size(call.data().kernels.tensor(tensor)?.matrix.n()))
}

fn tensor_columns(call: Call<'_>, tensor: u32) -> Result<u32> {
    Ok(size(call.data().kernels.tensor(tensor)?.matrix.k()))
}

fn tensor_row(mut call: Call<'_>, tensor: u32, row: u32, out: u32) -> Result<()> {
    let tensor = call.data().kernels.tensor(tensor)?;
    let columns = tensor.matrix.k() as u64;
    pay(&mut call, columns, 0)?;
    if row as usize >= tensor.matrix.n() {
        return fail(Failure::BadShape);
    }
    let (memory, _) = memory(&mut call);
    let out = floats(memory, out, columns)?;
    tensor.matrix.row(row as usize, as_floats(&mut memory[out]));
    Ok(())
}

fn matmul(mut call: Call<'_>, tensor: u32, x: u32, rows: u32, y: u32) -> Result<()> {
    let tensor = call.data().kernels.tensor(tensor)?;
    multiply(&mut call, &[tensor], x, rows, y)
}

/// Several matrices, whose handles are at `tensors`; their products lie one after another.
fn matmul_many(mut call: Call<'_>, tensors: u32, count: u32, x: u32, rows: u32, y: u32) -> Result<()> {
    if count == 0 || count > MATRICES_MAX {
        return fail(Failure::BadShape);
    }
    let (memory, host) = memory(&mut call);
    let handles = &memory[range(memory, tensors, 4 * count)?];
    let handles = handles.as_chunks().0.iter().map(|handle| u32::from_le_bytes(*handle));
    let tensors = handles.map(|handle| host.kernels.tensor(handle)).collect::<Result<Vec<_>>>()?;
    multiply(&mut call, &tensors, x, rows, y)
}

fn multiply(call: &mut Call<'_>, tensors: &[Arc<Tensor>], x: u32, rows: u32, y: u32) -> Result<()> {
    let m = rows_fit(rows)?;
    let k = tensors[0].matrix.k();
    if tensors.iter().any(|tensor| tensor.matrix.k() != k) {
        return fail(Failure::BadShape);
    }
    let n = tensors.iter().map(|tensor| tensor.matrix.n() as u64).sum::<u64>();
    pay(call, product(&[m, k as u64 + n]), product(&[m, n, k as u64]))?;
    let (memory, host) = memory(call);
    let (x, y) = (floats(memory, x, product(&[m, k as u64]))?, floats(memory, y, product(&[m, n]))?);
    let Kernels { plan, x: activations, .. } = &mut host.kernels;
    activations.reset(rows as usize, k).copy_from_slice(read_floats(&memory[x]));
    let y = as_floats(&mut memory[y]);
    let mut rest = &mut *y;
    for Tensor { matrix, .. } in tensors.iter().map(|tensor| &**tensor) {
        let (part, others) = rest.split_at_mut(rows as usize * matrix.n());
        matrix.multiply(activations, part, plan);
        rest = others;
    }
    canonical(y);
    Ok(())
}

/// A vector's elements.
fn vector(tensor: &Tensor) -> Result<&[f32]> {
    match &tensor.vector {
        Some(vector) => Ok(vector),
        None => fail(Failure::BadShape),
    }
}

fn rms_norm(mut call: Call<'_>, weight: u32, x: u32, rows: u32, epsilon: f32) -> Result<()> {
    let weight = call.data().kernels.tensor(weight)?;
    with_rows(&mut call, x, rows, vector(&weight)?.len(), |values, plan| {
        kernels::rms_norm(values, vector(&weight)?, epsilon, plan);
        Ok(())
    })
}

fn layer_norm(mut call: Call<'_>, weight: u32, bias: u32, x: u32, rows: u32, epsilon: f32) -> Result<()> {
    let [weight, bias] = [weight, bias].map(|handle| call.data().kernels.tensor(handle));
    let (weight, bias) = (weight?, bias?);
    let (weight, bias) = (vector(&weight)?, vector(&bias)?);
    if weight.len() != bias.len() {
        return fail(Failure::BadShape);
    }
    with_rows(&mut call, x, rows, weight.len(), |values, plan| {
        kernels::layer_norm(values, weight, bias, epsilon, plan);
        Ok(())
    })
}

fn add_bias(mut call: Call<'_>, bias: u32, x: u32, rows: u32) -> Result<()> {
    let bias = call.data().kernels.tensor(bias)?;
    with_rows(&mut call, x, rows, vector(&bias)?.len(), |values, _| {
        kernels::add_bias(values, vector(&bias)?);
        Ok(())
    })
}

/// Has rows of the guest's memory changed.
fn with_rows(
    call: &mut Call<'_>,
    x: u32,
    rows: u32,
    width: usize,
    change: impl FnOnce(&mut [f32], &Plan) -> Result<()>,
) -> Result<()> {
    let count = product(&[rows_fit(rows)?, width as u64]);
    if width == 0 {
        return fail(Failure::BadShape);
    }
    pay(call, count, count)?;
    let (memory, host) = memory(call);
    let x = floats(memory, x, count)?;
    let values = as_floats(&mut memory[x]);
    change(values, &host.kernels.plan)?;
    canonical(values);
    Ok(())
}

fn add(mut call: Call<'_>, x: u32, y: u32, count: u32) -> Result<()> {
    pay(&mut call, count.into(), 0)?;
    let (memory, _) = memory(&mut call);
    let (x, y) = (floats(memory, x, count.into())?, floats(memory, y, count.into())?);
    let [x, y] = two(memory, x, y)?;
    kernels::add(x, y);
    canonical(x);
    Ok(())
}

fn silu_multiply(mut call: Call<'_>, gate: u32, up: u32, count: u32) -> Result<()> {
    pay(&mut call, product(&[count.into(), 2]), product(&[count.into(), 20]))?;
    let (memory, host) = memory(&mut call);
    let (gate, up) = (floats(memory, gate, count.into())?, floats(memory, up, count.into())?);
    let [gate, up] = two(memory, gate, up)?;
    kernels::silu_multiply(gate, up, &host.kernels.plan);
    canonical(gate);
    Ok(())
}

fn gelu(mut call: Call<'_>, x: u32, count: u32, by_tanh: u32) -> Result<()> {
    pay(&mut call, count.into(), product(&[count.into(), 20]))?;
    let (memory, host) = memory(&mut call);
    let x = floats(memory, x, count.into())?;
    let values = as_floats(&mut memory[x]);
    let activation = if by_tanh == 0 { Activation::Gelu } else { Activation::GeluTanh };
    kernels::gelu(activation, values, &host.kernels.plan);
    canonical(values);
    Ok(())
}

fn softmax(mut call: Call<'_>, x: u32, count: u32) -> Result<()> {
    pay(&mut call, count.into(), product(&[count.into(), 20]))?;
    let (memory, _) = memory(&mut call);
    let x = floats(memory, x, count.into())?;
    let values = as_floats(&mut memory[x]);
    if !values.is_empty() {
        kernels::softmax(values);
    }
    canonical(values);
    Ok(())
}

/// Counts what is kept outside the guest's memory against its bound.
fn keep(host: &mut Host, bytes: u64) -> Result<()> {
    host.kernels.cache_bytes = host.kernels.cache_bytes.saturating_add(bytes);
    if host.kernels.cache_bytes > host.limits.cache_bytes_max { fail(Failure::OutOfMemory) } else { Ok(()) }
}

/// `factors` is 0, or where the divisors of the frequencies are: f64s, one for each pair.
#[allow(clippy::too_many_arguments)] // the ABI's
fn rope_open(
    mut call: Call<'_>,
    theta: f64,
    head_dim: u32,
    rotary_dim: u32,
    context_tokens: u32,
    interleaved: u32,
    factors: u32,
) -> Result<i32> {
    if head_dim > DIM_MAX || rotary_dim > head_dim || context_tokens > CONTEXT_MAX {
        pay(&mut call, 0, 0)?;
        return Ok(-1);
    }
    // Positions are computed when they are first needed, by whichever run that is: they are paid for here.
    charge(&mut call, product(&[rotary_dim.into(), u64::from(context_tokens).saturating_add(8), ROTARY_FUEL]))?;
    let (memory, host) = memory(&mut call);
    if host.kernels.opened.len() >= OPEN_MAX + host.kernels.tensors.len() {
        return Ok(-1);
    }
    let factors = match factors {
        0 => None,
        start => {
            let bytes = &memory[range(memory, start, 8 * (rotary_dim / 2))?];
            Some(bytes.as_chunks().0.iter().map(|factor| f64::from_le_bytes(*factor)).collect())
        }
    };
    let pairs = if interleaved == 0 { RopePairs::Halves } else { RopePairs::Interleaved };
    let config = RopeConfig { pairs, factors, ..RopeConfig::plain(theta) };
    let (head_dim, rotary_dim, context) = (head_dim as usize, rotary_dim as usize, context_tokens as usize);
    keep(host, Rotary::bytes_max(rotary_dim, context) as u64)?;
    let Some(rotary) = Rotary::new(&config, head_dim, rotary_dim, context) else { return Ok(-1) };
    Ok(host.kernels.add(Opened::Rotary(Arc::new(rotary))).cast_signed())
}

/// Rotates rows of `width` elements, heads one after another; the first is at `position`.
fn rope(mut call: Call<'_>, rotary: u32, x: u32, rows: u32, width: u32, position: u32) -> Result<()> {
    let Opened::Rotary(rotary) = call.data().kernels.get(rotary)?.clone() else { return fail(Failure::BadHandle) };
    if !rotary.fits(width as usize, position as usize, rows as usize) {
        return fail(Failure::BadShape);
    }
    with_rows(&mut call, x, rows, width as usize, |values, _| {
        rotary.rotate(values, width as usize, position as usize);
        Ok(())
    })
}

fn memory_open(mut call: Call<'_>, layers: u32, kv_heads: u32, head_dim: u32) -> Result<i32> {
    pay(&mut call, layers.into(), 0)?;
    let host = call.data_mut();
    let full = host.kernels.opened.len() >= OPEN_MAX + host.kernels.tensors.len();
    if full || [layers, kv_heads, head_dim].iter().any(|size| *size == 0 || *size > DIM_MAX) {
        return Ok(-1);
    }
    keep(host, 64 * u64::from(layers))?;
    let opened = Memory::new(layers as usize, kv_heads as usize, head_dim as usize);
    Ok(host.kernels.add(Opened::Memory(Box::new(opened))).cast_signed())
}

/// The tokens after those counted go through one layer: `query` and `out` are `[rows][heads][head_dim]`.
#[allow(clippy::too_many_arguments)] // the ABI's
fn attend(
    mut call: Call<'_>,
    handle: u32,
    layer: u32,
    heads: u32,
    rows: u32,
    query: u32,
    key: u32,
    value: u32,
    out: u32,
) -> Result<()> {
    let m = rows_fit(rows)?;
    let layer = layer as usize;
    let Opened::Memory(sequence) = call.data().kernels.get(handle)? else { return fail(Failure::BadHandle) };
    if heads > DIM_MAX || !sequence.fits(layer, heads as usize, rows as usize) {
        return fail(Failure::BadShape);
    }
    let (kv_width, width) = (sequence.width() as u64, product(&[heads.into(), sequence.head_dim() as u64]));
    let (filled, end) = (sequence.filled(layer).unwrap_or(0), sequence.tokens() + rows as usize);
    let grown = (sequence.layer_bytes(end.max(filled)) - sequence.layer_bytes(filled)) as u64;
    pay(&mut call, product(&[m, 2 * (kv_width + width)]), product(&[m, end as u64, width, 2]))?;
    let (memory, host) = memory(&mut call);
    keep(host, grown)?;
    let query = floats(memory, query, product(&[m, width]))?;
    let key = floats(memory, key, product(&[m, kv_width]))?;
    let value = floats(memory, value, product(&[m, kv_width]))?;
    let out = floats(memory, out, product(&[m, width]))?;
    let Kernels { opened, scratch, plan, .. } = &mut host.kernels;
    for (scratch, range) in scratch.iter_mut().zip([query, key, value]) {
        scratch.clear();
        scratch.extend_from_slice(read_floats(&memory[range]));
    }
    let out = as_floats(&mut memory[out]);
    if let Some(Opened::Memory(sequence)) = opened.get_mut(handle as usize) {
        sequence.attend(layer, heads as usize, scratch.each_ref().map(|part| &part[..]), out, plan);
    }
    canonical(out);
    Ok(())
}

/// Counts tokens that have gone through all layers.
fn memory_advance(mut call: Call<'_>, handle: u32, tokens: u32) -> Result<()> {
    pay(&mut call, 0, 0)?;
    let Some(Opened::Memory(sequence)) = call.data_mut().kernels.opened.get_mut(handle as usize) else {
        return fail(Failure::BadHandle);
    };
    if sequence.advance(tokens as usize) { Ok(()) } else { fail(Failure::BadShape) }
}

/// Seven words: temperature, top_k, min_p, top_p, and the penalties of repetition, presence and frequency.
fn sampler_open(mut call: Call<'_>, sampling: u32) -> Result<i32> {
    pay(&mut call, 0, 0)?;
    let (memory, host) = memory(&mut call);
    let Some(Task { seed, .. }) = host.task else { return fail(Failure::NotInInit) };
    if host.kernels.samplers.len() >= OPEN_MAX {
        return Ok(-1);
    }
    let words = &memory[range(memory, sampling, 28)?];
    let words = words.as_chunks::<4>().0;
    let float = |word: usize| f32::from_le_bytes(words[word]);
    let sampling = Sampling {
        temperature: float(0),
        top_k: u32::from_le_bytes(words[1]) as usize,
        min_p: float(2),
        top_p: float(3),
        repetition_penalty: float(4),
        presence_penalty: float(5),
        frequency_penalty: float(6),
    };
    let finite = (0..7).filter(|word| *word != 1).all(|word| float(word).is_finite());
    if !finite || sampling.repetition_penalty <= 0.0 {
        return Ok(-1);
    }
    host.kernels.samplers.push(Sampler::new(sampling, seed));
    i32::try_from(host.kernels.samplers.len() - 1).map_or(Ok(-1), Ok)
}

#[allow(clippy::too_many_arguments)] // the ABI's
fn sample(
    mut call: Call<'_>,
    sampler: u32,
    logits: u32,
    count: u32,
    prompt: u32,
    prompt_tokens: u32,
    answer: u32,
    answer_tokens: u32,
) -> Result<u32> {
    let tokens = u64::from(prompt_tokens) + u64::from(answer_tokens);
    pay(&mut call, product(&[count.into(), 4]).saturating_add(tokens), 0)?;
    let (memory, host) = memory(&mut call);
    let logits = floats(memory, logits, count.into())?;
    let [prompt, answer] = [(prompt, prompt_tokens), (answer, answer_tokens)].map(|(start, tokens)| {
        let range = floats(memory, start, tokens.into())?;
        let words = memory[range].as_chunks().0.iter().map(|token| u32::from_le_bytes(*token));
        // Whoever names a token that is none means nothing by it.
        Ok::<_, wasmtime::Error>(words.filter(|token| *token < count).collect::<Vec<u32>>())
    });
    let (prompt, answer) = (prompt?, answer?);
    let Some(sampler) = host.kernels.samplers.get_mut(sampler as usize) else { return fail(Failure::BadHandle) };
    if count == 0 {
        return fail(Failure::BadShape);
    }
    Ok(sampler.sample(read_floats(&memory[logits]), &prompt, &answer))
}

pub(crate) fn link(linker: &mut Linker<Host>) -> Result<()> {
    let module = "althing";
    linker.func_wrap(module, "tensor_open", tensor_open)?;
    linker.func_wrap(module, "tensor_rows", tensor_rows)?;
    linker.func_wrap(module, "tensor_columns", tensor_columns)?;
    linker.func_wrap(module, "tensor_row", tensor_row)?;
    linker.func_wrap(module, "matmul", matmul)?;
    linker.func_wrap(module, "matmul_many", matmul_many)?;
    linker.func_wrap(module, "rms_norm", rms_norm)?;
    linker.func_wrap(module, "layer_norm", layer_norm)?;
    linker.func_wrap(module, "add", add)?;
    linker.func_wrap(module, "add_bias", add_bias)?;
    linker.func_wrap(module, "silu_multiply", silu_multiply)?;
    linker.func_wrap(module, "gelu", gelu)?;
    linker.func_wrap(module, "softmax", softmax)?;
    linker.func_wrap(module, "rope_open", rope_open)?;
    linker.func_wrap(module, "rope", rope)?;
    linker.func_wrap(module, "memory_open", memory_open)?;
    linker.func_wrap(module, "attend", attend)?;
    linker.func_wrap(module, "memory_advance", memory_advance)?;
    linker.func_wrap(module, "sampler_open", sampler_open)?;
    linker.func_wrap(module, "sample", sample)?;
    Ok(())
}
