//! What long work shows meanwhile: on standard error, and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

fn target(output: &Output) -> ProgressDrawTarget {
    // indicatif itself draws nothing where standard error is no terminal.
    if output.is_json() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

/// Something turns, and the time runs.
pub fn spinner(output: &Output) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(output));
    if !bar.is_hidden() {
        bar.set_style(style("{spinner} {elapsed} {msg}"));
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    bar
}

/// A bar with a known end, or without one.
pub fn bar(output: &Output, length: Option<u64>, unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length, target(output));
    bar.set_style(match length {
        Some(_) => style(&format!("[{{bar:40}}] {{pos}}/{{len}} {unit}, {{elapsed}} {{msg}}")),
        None => style(&format!("{{spinner}} {{pos}} {unit}, {{elapsed}} {{msg}}")),
    });
    bar
}

fn style(template: &str) -> ProgressStyle {
    // The templates are this file's own.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
