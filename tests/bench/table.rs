//! The table that is printed, and the arithmetic of medians.

/// Several measurements of one thing.
#[derive(Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// The value below which this part of them lies.
    pub fn at(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// The least and the most.
    pub fn spread(&self) -> String {
        let (low, high) = (self.at(0.0), self.at(1.0));
        let digits = if high.abs() >= 1000.0 { 0 } else { 2 };
        format!("{low:.digits$} … {high:.digits$}")
    }
}

/// A mark and whether it was reached.
pub enum Mark {
    AtLeast(f64),
    AtMost(f64),
    None,
}

pub fn head() {
    println!("{:<58} {:>14} {:>8} {:>20}", "", "median", "mark", "least … most");
}

/// Prints a row as soon as it is known.
pub fn row(name: &str, unit: &str, found: f64, mark: Mark, spread: &str) {
    let (told, verdict) = match mark {
        Mark::AtLeast(least) => (format!("≥ {least}"), if found >= least { "reached" } else { "NOT REACHED" }),
        Mark::AtMost(most) => (format!("≤ {most}"), if found <= most { "reached" } else { "NOT REACHED" }),
        Mark::None => (String::new(), ""),
    };
    let digits = if found.abs() >= 1000.0 { 0 } else { 3 };
    let shown = format!("{found:.digits$} {unit}");
    println!("{name:<58} {shown:>14} {told:>8} {spread:>20}  {verdict}");
}

pub fn note(text: &str) {
    println!("    {text}");
}

/// The machine, as far as it matters.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    format!(
        "{}, {cores} cores, Linux {}, load {} at the start",
        model.trim_start_matches(['\t', ' ', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or_default(),
    )
}
