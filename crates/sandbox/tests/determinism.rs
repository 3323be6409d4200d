//! A run gives the same bytes and takes the same fuel, whenever, however it was compiled, and wherever.

#![allow(clippy::unwrap_used)] // helpers of tests

use althing_sandbox::{Compile, Config, Files, Finish, Guest, Limits, Ran};

/// Integers, floats with NaNs, vectors, memory, calls, chance, time and files, all of it in the output.
const PROGRAM: &str = r#"(module
    (import "althing" "emit" (func $emit (param i32 i32)))
    (import "althing" "finish" (func $finish (param i32 i32 i32)))
    (import "althing" "seed" (func $seed (result i64)))
    (import "althing" "input_len" (func $input_len (result i32)))
    (import "althing" "input_read" (func $input_read (param i32 i32 i32) (result i32)))
    (import "althing" "blob_open" (func $blob_open (param i32 i32) (result i32)))
    (import "althing" "blob_len" (func $blob_len (param i32) (result i64)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "file")
    (global $ran (mut i32) (i32.const 0))
    (func (export "abi_version") (result i32) i32.const 1)
    (func (export "init")
        (i32.store (i32.const 64) (i32.const 41))
        (i64.store (i32.const 72) (call $blob_len (call $blob_open (i32.const 0) (i32.const 4))))
        (drop (memory.grow (i32.const 3)))
        (i32.store (i32.const 200000) (i32.const 5)))
    (func $fibonacci (param $n i32) (result i64)
        (if (result i64) (i32.lt_u (local.get $n) (i32.const 2))
            (then (i64.extend_i32_u (local.get $n)))
            (else (i64.add (call $fibonacci (i32.sub (local.get $n) (i32.const 1)))
                (call $fibonacci (i32.sub (local.get $n) (i32.const 2)))))))
    (func (export "run")
        ;; Nothing is left of an earlier run.
        (if (i32.ne (global.get $ran) (i32.const 0)) (then unreachable))
        (global.set $ran (i32.const 1))
        (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.load (i32.const 200000))))
        (i64.store (i32.const 80) (call $fibonacci (i32.const 20)))
        (i64.store (i32.const 88) (call $seed))
        (drop (call $random (i32.const 96) (i32.const 20)))
        (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 116)))
        (f32.store (i32.const 124) (f32.div (f32.const 0) (f32.const 0)))
        (f32.store (i32.const 128) (f32.sqrt (f32.const -1)))
        (f64.store (i32.const 132) (f64.sub (f64.const inf) (f64.const inf)))
        (v128.store (i32.const 140) (f32x4.div (v128.const f32x4 0 1 2 3) (v128.const f32x4 0 3 0 7)))
        (v128.store (i32.const 156) (f32x4.min (v128.const f32x4 nan 1 -0 3) (v128.const f32x4 1 nan:0x200001 0 2)))
        (drop (call $input_read (i32.const 0) (i32.const 172) (call $input_len)))
        (call $emit (i32.const 64) (i32.const 60))
        (call $emit (i32.const 124) (i32.add (i32.const 48) (call $input_len)))
        (call $finish (i32.const 1) (i32.const 2) (i32.const 3))))"#;

fn guest(compile: Compile) -> Guest {
    let files = Files::new([("file".to_owned(), vec![0; 1234]), ("another".to_owned(), vec![])]);
    Guest::new(&wat::parse_str(PROGRAM).unwrap(), files, Config { compile, ..Config::new(Limits::default()) }).unwrap()
}

#[test]
fn a_run_gives_the_committed_bytes_for_the_committed_fuel() {
    for compile in [Compile::Quick, Compile::Optimized] {
        let guest = guest(compile);
        assert_eq!(guest.init_fuel(), 1_121, "{compile:?}");
        for _ in 0..3 {
            let mut pieces = Vec::new();
            let ran = guest.run(b"the input", 7, &mut |piece| {
                pieces.push(piece.to_vec());
                true
            });
            let Ran { output, finish, fuel } = ran.unwrap();
            assert_eq!(pieces.concat(), output);
            assert_eq!(pieces.len(), 2);
            assert_eq!(finish, Some(Finish { by_length: true, prompt_tokens: 2, completion_tokens: 3 }));
            assert_eq!(
                hex::encode(&output),
                "2e00000000000000d2040000000000006d1a0000000000000700000000000000d70d3259e4e1cb631c663cf4d73c4c04022ab1ba\
                 00000000000000000000c07f0000c07f000000000000f87f0000c07fabaaaa3e0000807fb76ddb3e0000c07f0000c07f00000080\
                 0000004074686520696e707574",
                "{compile:?}"
            );
            assert_eq!(fuel, 537_007, "{compile:?}");
        }
    }
}

#[test]
fn a_long_output_comes_in_few_pieces_and_whole() {
    let module = r#"(module
        (import "althing" "emit" (func $emit (param i32 i32)))
        (memory (export "memory") 2)
        (func (export "abi_version") (result i32) i32.const 1)
        (func (export "run") (local $at i32)
            (loop $again
                (i32.store8 (local.get $at) (local.get $at))
                (call $emit (local.get $at) (i32.const 1))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $at) (i32.const 100000))))))"#;
    let config = Config { compile: Compile::Quick, ..Config::new(Limits::default()) };
    let guest = Guest::new(&wat::parse_str(module).unwrap(), Files::default(), config).unwrap();
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let ran = guest.run(b"", 0, &mut |piece| {
        pieces.push(piece.to_vec());
        true
    });
    let expected: Vec<u8> = (0..100_000u32).map(|at| at.to_le_bytes()[0]).collect();
    assert_eq!(ran.unwrap().output, expected);
    assert_eq!(pieces.concat(), expected);
    assert!((4_096..25_000).contains(&pieces.len()), "{}", pieces.len());
}

#[test]
fn another_seed_is_another_chance() {
    let guest = guest(Compile::Quick);
    let run = |seed| guest.run(b"", seed, &mut |_| true).unwrap();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).output, run(2).output);
    assert_eq!(run(1).fuel, run(2).fuel);
}

#[test]
fn runs_at_once_do_not_see_each_other() {
    let guest = guest(Compile::Quick);
    let expected = guest.run(b"x", 3, &mut |_| true).unwrap();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..16).map(|_| scope.spawn(|| guest.run(b"x", 3, &mut |_| true).unwrap())).collect();
        for run in runs {
            assert_eq!(run.join().unwrap(), expected);
        }
    });
}
