//! Data goes to stdout, everything else to stderr.

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::{
    fmt,
    io::{self, StdoutLock, Write},
    time::Duration,
};

/// In the place of the standard library's, which panics where stdout is closed.
macro_rules! print {
    ($($arguments:tt)*) => { $crate::output::print(format_args!($($arguments)*)) };
}

/// The same.
macro_rules! println {
    () => { $crate::output::print(format_args!("\n")) };
    ($($arguments:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($arguments)*))) };
}

/// Stdout. Whoever closed it, such as `head` that has seen enough, wants nothing more: the program ends, and that is no
/// error.
pub struct Stdout(StdoutLock<'static>);

/// Stdout, as long as the result is held.
pub fn stdout() -> Stdout {
    Stdout(io::stdout().lock())
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(end_if_closed)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(end_if_closed)
    }
}

fn end_if_closed(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    error
}

/// What `print!` and `println!` are made of. What cannot be printed ends the program.
pub fn print(arguments: fmt::Arguments<'_>) {
    if let Err(error) = stdout().write_fmt(arguments) {
        eprintln!("error: cannot write to stdout: {error}");
        std::process::exit(1);
    }
}

/// An error with its causes, each said once.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Prints one JSON value.
///
/// # Errors
/// Never for plain data.
pub fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints data as JSON, or as `print` does for people.
///
/// # Errors
/// Never for plain data.
pub fn data<T: Serialize + ?Sized>(json: bool, value: &T, print: impl FnOnce(&T)) -> anyhow::Result<()> {
    if json {
        return self::json(value);
    }
    print(value);
    Ok(())
}

/// A line that says what is going on, on terminals.
pub fn spinner(message: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.set_message(message.into());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A bar of bytes, on terminals; without a total it says how many there were.
pub fn bytes_bar(message: impl Into<String>, total: Option<u64>) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let template = "{msg}  {bar:30} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(message.into());
    bar
}

/// Rows of a table, aligned.
pub fn table(header: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain(std::iter::once(header[column].len())).max().unwrap_or(0)
        })
        .collect();
    let print = |cells: Vec<&str>| {
        let line: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    };
    print(header.to_vec());
    for row in rows {
        print(row.iter().map(String::as_str).collect());
    }
}
