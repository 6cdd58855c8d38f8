//! What quickstart tells while it works: on standard error, so that `--json` has standard output to
//! itself.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(super) struct Story {
    bar: ProgressBar,
    /// Where nobody watches a bar, lines are all there is.
    lines_only: bool,
    begun: Instant,
}

impl Story {
    pub(super) fn begin(messages: usize) -> Self {
        let lines_only = !std::io::stderr().is_terminal();
        let target = if lines_only {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(messages as u64), target);
        let style =
            ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len} delivered  {msg}")
                .expect("the template is a constant that a test renders");
        bar.set_style(style);
        if !lines_only {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self {
            bar,
            lines_only,
            begun: Instant::now(),
        }
    }

    pub(super) fn tell(&self, line: impl AsRef<str>) {
        let line = format!(
            "{:5.1} s  {}",
            self.begun.elapsed().as_secs_f64(),
            line.as_ref()
        );
        if self.lines_only {
            // The story is not the answer: it may find nobody listening.
            let told = writeln!(std::io::stderr(), "{line}");
            drop(told);
        } else {
            self.bar.println(line);
        }
    }

    pub(super) fn delivered(&self, messages: usize) {
        self.bar.set_position(messages as u64);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bar_can_be_drawn() {
        super::Story::begin(3).delivered(1);
    }
}
