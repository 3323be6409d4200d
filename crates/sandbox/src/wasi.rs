//! What compilers' standard libraries expect of a system, with fixed answers: there are no files, no
//! environment and no time; chance comes from the run's seed.

use crate::{
    guest::Failure,
    host::{Call, Host, charge, fail, memory, range},
};
use wasmtime::Linker;

type Result<T, E = wasmtime::Error> = std::result::Result<T, E>;

const SUCCESS: u32 = 0;
const BAD_DESCRIPTOR: u32 = 8;
const NOT_SUPPORTED: u32 = 58;
/// A character device without rights: what standard output is.
const CHARACTER_DEVICE: u8 = 2;

fn put(call: &mut Call<'_>, start: u32, bytes: &[u8]) -> Result<()> {
    let (memory, _) = memory(call);
    let len = u32::try_from(bytes.len()).expect("answers are short");
    let range = range(memory, start, len)?;
    memory[range].copy_from_slice(bytes);
    Ok(())
}

fn word(memory: &[u8], start: u32) -> Result<u32> {
    let range = range(memory, start, 4)?;
    Ok(u32::from_le_bytes(memory[range].try_into().expect("four bytes")))
}

/// No arguments and no variables: a count and a size of nothing.
fn sizes_get(mut call: Call<'_>, count: u32, size: u32) -> Result<u32> {
    charge(&mut call, 8)?;
    put(&mut call, count, &[0; 4])?;
    put(&mut call, size, &[0; 4])?;
    Ok(SUCCESS)
}

fn clock_time_get(mut call: Call<'_>, _clock: u32, _precision: u64, time: u32) -> Result<u32> {
    charge(&mut call, 8)?;
    put(&mut call, time, &[0; 8])?;
    Ok(SUCCESS)
}

/// SplitMix64 from the seed of the run: the same for the same run, and no secret.
fn random_get(mut call: Call<'_>, start: u32, len: u32) -> Result<u32> {
    charge(&mut call, len.into())?;
    let (memory, host) = memory(&mut call);
    let range = range(memory, start, len)?;
    for bytes in memory[range].chunks_mut(8) {
        host.chance = host.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = host.chance;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
    }
    Ok(SUCCESS)
}

/// Both standard outputs are the log.
fn fd_write(mut call: Call<'_>, descriptor: u32, pieces: u32, count: u32, written: u32) -> Result<u32> {
    charge(&mut call, u64::from(count) * 8)?;
    if !(1..=2).contains(&descriptor) {
        return Ok(BAD_DESCRIPTOR);
    }
    let mut total = 0u32;
    for piece in 0..count {
        let (memory, _) = memory(&mut call);
        let at = pieces.saturating_add(piece.saturating_mul(8));
        let (start, len) = (word(memory, at)?, word(memory, at.saturating_add(4))?);
        charge(&mut call, len.into())?;
        let (memory, host) = self::memory(&mut call);
        let range = range(memory, start, len)?;
        host.note(&memory[range]);
        total = total.saturating_add(len);
    }
    put(&mut call, written, &total.to_le_bytes())?;
    Ok(SUCCESS)
}

fn fd_fdstat_get(mut call: Call<'_>, descriptor: u32, stat: u32) -> Result<u32> {
    charge(&mut call, 24)?;
    if descriptor > 2 {
        return Ok(BAD_DESCRIPTOR);
    }
    let mut answer = [0; 24];
    answer[0] = CHARACTER_DEVICE;
    put(&mut call, stat, &answer)?;
    Ok(SUCCESS)
}

pub(crate) fn add(linker: &mut Linker<Host>) -> Result<()> {
    let module = "wasi_snapshot_preview1";
    linker.func_wrap(module, "args_sizes_get", sizes_get)?;
    linker.func_wrap(module, "args_get", |_: u32, _: u32| SUCCESS)?;
    linker.func_wrap(module, "environ_sizes_get", sizes_get)?;
    linker.func_wrap(module, "environ_get", |_: u32, _: u32| SUCCESS)?;
    linker.func_wrap(module, "clock_time_get", clock_time_get)?;
    linker.func_wrap(module, "clock_res_get", |_: u32, _: u32| NOT_SUPPORTED)?;
    linker.func_wrap(module, "random_get", random_get)?;
    linker.func_wrap(module, "sched_yield", || SUCCESS)?;
    linker.func_wrap(module, "fd_write", fd_write)?;
    linker.func_wrap(module, "fd_fdstat_get", fd_fdstat_get)?;
    linker.func_wrap(module, "fd_fdstat_set_flags", |_: u32, _: u32| NOT_SUPPORTED)?;
    linker.func_wrap(module, "fd_close", |_: u32| BAD_DESCRIPTOR)?;
    linker.func_wrap(module, "fd_read", |_: u32, _: u32, _: u32, _: u32| BAD_DESCRIPTOR)?;
    linker.func_wrap(module, "fd_seek", |_: u32, _: u64, _: u32, _: u32| BAD_DESCRIPTOR)?;
    linker.func_wrap(module, "fd_prestat_get", |_: u32, _: u32| BAD_DESCRIPTOR)?;
    linker.func_wrap(module, "fd_prestat_dir_name", |_: u32, _: u32, _: u32| BAD_DESCRIPTOR)?;
    linker.func_wrap(module, "proc_exit", |_: Call<'_>, code: u32| -> Result<()> { fail(Failure::Exited(code)) })?;
    Ok(())
}
