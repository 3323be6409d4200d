//! For models that are WebAssembly guests: their input and files, and what they say.
//!
//! A guest is a library of the type `cdylib` with one [`guest!`]:
//!
//! ```ignore
//! fn run() {
//!     let input = althing_guest::input();
//!     althing_guest::emit(&input);
//! }
//! althing_guest::guest!(run);
//! ```
//!
//! With `guest!(run, init = prepare)`, `prepare` runs once when the package is loaded; every run starts
//! from the memory that it left. The contract is `crates/sandbox/ABI.md`.
//!
//! [`math`] is the heavy part: matrices and attention, on weights that the host keeps.

pub mod math;

#[cfg(target_arch = "wasm32")]
mod raw {
    #[link(wasm_import_module = "althing")]
    unsafe extern "C" {
        pub fn input_len() -> u32;
        pub fn input_read(offset: u32, start: *mut u8, len: u32) -> u32;
        pub fn seed() -> u64;
        pub fn blob_open(name: *const u8, len: u32) -> i32;
        pub fn blob_len(handle: u32) -> i64;
        pub fn blob_read(handle: u32, offset: u64, start: *mut u8, len: u32) -> u32;
        pub fn emit(start: *const u8, len: u32);
        pub fn finish(by_length: u32, prompt_tokens: u32, completion_tokens: u32);
        pub fn refuse(start: *const u8, len: u32);
        pub fn log(start: *const u8, len: u32);
        pub fn tensor_open(name: *const u8, len: u32) -> i32;
        pub fn tensor_rows(tensor: u32) -> u32;
        pub fn tensor_columns(tensor: u32) -> u32;
        pub fn tensor_row(tensor: u32, row: u32, out: *mut f32);
        pub fn matmul(tensor: u32, x: *const f32, rows: u32, y: *mut f32);
        pub fn matmul_many(tensors: *const u32, count: u32, x: *const f32, rows: u32, y: *mut f32);
        pub fn rms_norm(weight: u32, x: *mut f32, rows: u32, epsilon: f32);
        pub fn layer_norm(weight: u32, bias: u32, x: *mut f32, rows: u32, epsilon: f32);
        pub fn add(x: *mut f32, y: *const f32, count: u32);
        pub fn add_bias(bias: u32, x: *mut f32, rows: u32);
        pub fn silu_multiply(gate: *mut f32, up: *const f32, count: u32);
        pub fn gelu(x: *mut f32, count: u32, by_tanh: u32);
        pub fn softmax(x: *mut f32, count: u32);
        pub fn rope_open(
            theta: f64,
            head_dim: u32,
            rotary_dim: u32,
            context_tokens: u32,
            interleaved: u32,
            factors: *const f64,
        ) -> i32;
        pub fn rope(rotary: u32, x: *mut f32, rows: u32, width: u32, position: u32);
        pub fn memory_open(layers: u32, kv_heads: u32, head_dim: u32) -> i32;
        pub fn attend(
            memory: u32,
            layer: u32,
            heads: u32,
            rows: u32,
            query: *const f32,
            key: *const f32,
            value: *const f32,
            out: *mut f32,
        );
        pub fn memory_advance(memory: u32, tokens: u32);
        pub fn sampler_open(sampling: *const u32) -> i32;
        pub fn sample(
            sampler: u32,
            logits: *const f32,
            count: u32,
            prompt: *const u32,
            prompt_tokens: u32,
            answer: *const u32,
            answer_tokens: u32,
        ) -> u32;
    }
}

/// Guests are compiled for the host that they run under; elsewhere they are only checked.
#[cfg(not(target_arch = "wasm32"))]
mod raw {
    #![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]
    macro_rules! elsewhere {
        ($($name:ident($($ty:ty),*) $(-> $result:ty)?;)*) => {$(
            pub unsafe fn $name($(_: $ty),*) $(-> $result)? {
                unimplemented!("a guest runs in its sandbox")
            }
        )*};
    }
    elsewhere! {
        input_len() -> u32;
        input_read(u32, *mut u8, u32) -> u32;
        seed() -> u64;
        blob_open(*const u8, u32) -> i32;
        blob_len(u32) -> i64;
        blob_read(u32, u64, *mut u8, u32) -> u32;
        emit(*const u8, u32);
        finish(u32, u32, u32);
        refuse(*const u8, u32);
        log(*const u8, u32);
        tensor_open(*const u8, u32) -> i32;
        tensor_rows(u32) -> u32;
        tensor_columns(u32) -> u32;
        tensor_row(u32, u32, *mut f32);
        matmul(u32, *const f32, u32, *mut f32);
        matmul_many(*const u32, u32, *const f32, u32, *mut f32);
        rms_norm(u32, *mut f32, u32, f32);
        layer_norm(u32, u32, *mut f32, u32, f32);
        add(*mut f32, *const f32, u32);
        add_bias(u32, *mut f32, u32);
        silu_multiply(*mut f32, *const f32, u32);
        gelu(*mut f32, u32, u32);
        softmax(*mut f32, u32);
        rope_open(f64, u32, u32, u32, u32, *const f64) -> i32;
        rope(u32, *mut f32, u32, u32, u32);
        memory_open(u32, u32, u32) -> i32;
        attend(u32, u32, u32, u32, *const f32, *const f32, *const f32, *mut f32);
        memory_advance(u32, u32);
        sampler_open(*const u32) -> i32;
        sample(u32, *const f32, u32, *const u32, u32, *const u32, u32) -> u32;
    }
}

/// The version of the ABI that this is for.
pub const ABI_VERSION: i32 = 1;

fn len<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("memory has 32-bit addresses")
}

/// The run's input, whole.
pub fn input() -> Vec<u8> {
    // SAFETY: the host writes at most as many bytes as the buffer has.
    unsafe {
        let mut input = vec![0; raw::input_len() as usize];
        let read = raw::input_read(0, input.as_mut_ptr(), len(&input));
        input.truncate(read as usize);
        input
    }
}

/// The run's seed: all chance comes from it.
pub fn seed() -> u64 {
    // SAFETY: it touches no memory.
    unsafe { raw::seed() }
}

/// A file of the package. It may be kept from `init` to runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob(u32);

impl Blob {
    /// The file of this name, if the package has it.
    pub fn open(name: &str) -> Option<Self> {
        // SAFETY: the host reads the name, as long as it is.
        let handle = unsafe { raw::blob_open(name.as_ptr(), len(name.as_bytes())) };
        u32::try_from(handle).ok().map(Self)
    }

    /// Bytes.
    pub fn size(self) -> u64 {
        // SAFETY: it touches no memory.
        u64::try_from(unsafe { raw::blob_len(self.0) }).expect("the handle is the host's")
    }

    /// Reads from `offset` on as much as there is room for; how much that was.
    pub fn read_at(self, offset: u64, target: &mut [u8]) -> usize {
        // SAFETY: the host writes at most as many bytes as the buffer has.
        unsafe { raw::blob_read(self.0, offset, target.as_mut_ptr(), len(target)) as usize }
    }

    /// All of it, in the guest's own memory.
    pub fn read(self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.size()).expect("memory has 32-bit addresses")];
        let read = self.read_at(0, &mut bytes);
        bytes.truncate(read);
        bytes
    }
}

/// Adds to the output. Whoever waits gets it now.
pub fn emit(bytes: &[u8]) {
    // SAFETY: the host reads the bytes, as many as there are.
    unsafe { raw::emit(bytes.as_ptr(), len(bytes)) }
}

/// Says how an answer of a chat model ended, and how many tokens it had.
pub fn finish(by_length: bool, prompt_tokens: u32, completion_tokens: u32) {
    // SAFETY: it touches no memory.
    unsafe { raw::finish(by_length.into(), prompt_tokens, completion_tokens) }
}

/// Ends the run: there is no answer to this input, and `why` is the result.
pub fn refuse(why: &str) -> ! {
    // SAFETY: the host reads the text, as long as it is.
    unsafe { raw::refuse(why.as_ptr(), len(why.as_bytes())) }
    unreachable!("a refusal does not come back")
}

/// Says something to whoever runs the model; no part of the result.
pub fn log(text: &str) {
    // SAFETY: the host reads the text, as long as it is.
    unsafe { raw::log(text.as_ptr(), len(text.as_bytes())) }
}

/// What the host calls: `guest!(run)` or `guest!(run, init = prepare)`, with functions of no arguments.
#[macro_export]
macro_rules! guest {
    ($run:path $(, init = $init:path)?) => {
        #[unsafe(export_name = "abi_version")]
        extern "C" fn althing_guest_abi_version() -> i32 {
            $crate::ABI_VERSION
        }
        #[unsafe(export_name = "run")]
        extern "C" fn althing_guest_run() {
            $run();
        }
        $(
            #[unsafe(export_name = "init")]
            extern "C" fn althing_guest_init() {
                $init();
            }
        )?
    };
}
