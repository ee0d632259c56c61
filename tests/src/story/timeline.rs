//! A history as a picture: roles, terms, blocks and deeds over time, as SVG.

use std::fmt::Write;

use super::words::{deed_name, deed_text, lasts_ms};
use super::{node_name, nodes};
use crate::history::{EventKind, History, Outcome};

const WIDTH: f64 = 1600.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const ROW: f64 = 18.0;
const LANE: f64 = 44.0;
/// The time in which things are done has at least this part of the width.
const SPAN_PART: f64 = 0.8;
/// About the width of a letter.
const LETTER: f64 = 6.2;
/// Deeds beyond so many rows are drawn over each other.
const MOST_ROWS: usize = 16;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Down,
    Up,
    Leads,
}

/// A stretch of time on a node's lane.
struct Stretch {
    from_ms: u64,
    to_ms: u64,
    role: Role,
    term: u64,
}

/// A picture of what happened: a lane per node with its roles and terms, the blocks above, and
/// what was done above those.
#[must_use]
pub fn timeline(history: &History, outcome: &Outcome) -> String {
    Picture::new(history, outcome).draw()
}

struct Picture<'a> {
    history: &'a History,
    outcome: &'a Outcome,
    end_ms: u64,
    svg: String,
}

impl<'a> Picture<'a> {
    fn new(history: &'a History, outcome: &'a Outcome) -> Self {
        let last = outcome.events.last().map_or(0, |event| event.at_ms);
        let broken = outcome.broken.as_ref().map_or(0, |broken| broken.at_ms);
        Self { history, outcome, end_ms: last.max(broken).max(1), svg: String::new() }
    }

    /// A rest that takes long, because something never comes, gets a small part of the width.
    fn x(&self, at_ms: u64) -> f64 {
        let (at, end) = (at_ms.min(self.end_ms) as f64, self.end_ms as f64);
        let span = (self.history.span_ms as f64).clamp(1.0, end);
        let part = if span < end * SPAN_PART { SPAN_PART } else { span / end };
        let share =
            if at <= span { at / span * part } else { part + (at - span) / (end - span) * (1.0 - part) };
        LEFT + (WIDTH - LEFT - RIGHT) * share
    }

    fn draw(mut self) -> String {
        let nodes = nodes(self.history, self.outcome);
        let rows = self.deed_rows();
        let used = rows.iter().map(|(_, row)| row + 1).max().unwrap_or(1);
        let blocks_y = TOP + used as f64 * ROW + 10.0;
        let lanes_y = blocks_y + 34.0;
        let bottom = lanes_y + nodes.len() as f64 * LANE;
        let height = bottom + 70.0;
        let _ = writeln!(
            self.svg,
            "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' \
             viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='11'>\n\
             <rect width='100%' height='100%' fill='white'/>"
        );
        self.title();
        self.axis(blocks_y, bottom);
        self.deeds(&rows, bottom);
        self.blocks(blocks_y);
        for (lane, node) in nodes.into_iter().enumerate() {
            self.lane(node, lanes_y + lane as f64 * LANE);
        }
        self.marks(blocks_y, bottom);
        self.legend(bottom + 46.0);
        self.svg.push_str("</svg>\n");
        self.svg
    }

    fn text(&mut self, x: f64, y: f64, attributes: &str, text: &str) {
        let _ = writeln!(self.svg, "<text x='{x:.1}' y='{y:.1}' {attributes}>{}</text>", escaped(text));
    }

    fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), attributes: &str, title: &str) {
        let _ = writeln!(
            self.svg,
            "<rect x='{x:.1}' y='{y:.1}' width='{:.1}' height='{height:.1}' {attributes}>\
             <title>{}</title></rect>",
            width.max(1.0),
            escaped(title)
        );
    }

    fn line(&mut self, x: f64, (from, to): (f64, f64), attributes: &str) {
        let _ =
            writeln!(self.svg, "<line x1='{x:.1}' x2='{x:.1}' y1='{from:.1}' y2='{to:.1}' {attributes}/>");
    }

    fn title(&mut self) {
        let shape = &self.history.shape;
        let title = format!(
            "seed {}: {} voters, a block every {} ms, {} deeds",
            self.history.seed,
            shape.voters,
            shape.block_time_ms,
            self.history.deeds.len()
        );
        self.text(10.0, 22.0, "font-size='15' font-weight='bold'", &title);
        match &self.outcome.broken {
            Some(broken) => {
                let told: String = super::named(broken).chars().take(180).collect();
                let told = format!("broken after {} ms: {told}", broken.at_ms);
                self.text(10.0, 42.0, "font-size='13' fill='#b00020'", &told);
            }
            None => self.text(10.0, 42.0, "font-size='13' fill='#1b7f3b'", "no promise was broken"),
        }
    }

    /// A line about every tenth of the time, at a round number.
    fn axis(&mut self, top: f64, bottom: f64) {
        let wanted = self.history.span_ms.min(self.end_ms) / 10;
        let steps = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000, 300_000];
        let step = steps.into_iter().find(|step| *step >= wanted).unwrap_or(600_000);
        let mut last = f64::MIN;
        for at_ms in (0..=self.end_ms).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let x = self.x(at_ms);
            if x < last + 40.0 {
                continue;
            }
            last = x;
            self.line(x, (top, bottom), "stroke='#dddddd'");
            let label = format!("{} s", at_ms as f64 / 1000.0);
            self.text(x, bottom + 16.0, "text-anchor='middle' fill='#555555'", &label);
        }
    }

    /// The deeds of this history that were done, each with a row where it has room.
    fn deed_rows(&self) -> Vec<(usize, usize)> {
        let mut free: Vec<f64> = vec![];
        let mut rows = vec![];
        for (index, deed) in self.history.deeds.iter().enumerate() {
            if deed.at_ms > self.end_ms {
                continue;
            }
            let from = self.x(deed.at_ms);
            let to = self.x(deed.at_ms.saturating_add(lasts_ms(&deed.what)));
            let to = to.max(from + 8.0 + LETTER * deed_name(&deed.what).len() as f64);
            let row = match free.iter().position(|end| *end <= from) {
                Some(row) => row,
                None if free.len() < MOST_ROWS => {
                    free.push(0.0);
                    free.len() - 1
                }
                None => index % MOST_ROWS,
            };
            free[row] = to + 4.0;
            rows.push((index, row));
        }
        rows
    }

    fn deeds(&mut self, rows: &[(usize, usize)], bottom: f64) {
        for (index, row) in rows {
            let deed = &self.history.deeds[*index];
            let (x, y) = (self.x(deed.at_ms), TOP + *row as f64 * ROW);
            let width = self.x(deed.at_ms.saturating_add(lasts_ms(&deed.what))) - x;
            self.line(x, (y, bottom), "stroke='#e07070' stroke-dasharray='1 4'");
            let title = format!("{} ms: {}", deed.at_ms, deed_text(&deed.what));
            self.bar(
                (x, y),
                (width, ROW - 4.0),
                "fill='#f6c6c6' stroke='#c04040' stroke-width='0.5'",
                &title,
            );
            self.text(x + 3.0, y + 11.0, "fill='#701010'", &deed_name(&deed.what));
        }
    }

    fn blocks(&mut self, y: f64) {
        self.text(10.0, y + 15.0, "fill='#333333'", "blocks");
        let (mut labelled, mut last_term) = (f64::MIN, 0);
        for event in &self.outcome.events {
            let EventKind::Committed { height, term, txs, .. } = &event.what else { continue };
            let x = self.x(event.at_ms);
            let colour = COLOURS[usize::try_from(term % COLOURS.len() as u64).unwrap_or_default()];
            let title = format!("{} ms: block {height}, term {term}, {txs} transactions", event.at_ms);
            self.bar((x, y + 4.0), (1.5, 14.0), &format!("fill='{colour}'"), &title);
            if x > labelled + 46.0 || *term != last_term {
                if x > labelled + 14.0 {
                    self.text(x, y + 29.0, "font-size='9' fill='#333333'", &height.to_string());
                    labelled = x;
                }
                last_term = *term;
            }
        }
    }

    fn stretches(&self, node: usize) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = vec![];
        let mut now = Stretch { from_ms: 0, to_ms: 0, role: Role::Up, term: 0 };
        for event in self.outcome.events.iter().filter(|event| event.node == Some(node)) {
            let (role, term) = match &event.what {
                EventKind::Started { .. } => (Role::Up, now.term),
                EventKind::Ended { .. } => (Role::Down, now.term),
                EventKind::Leads { term } => (Role::Leads, *term),
                EventKind::Follows { term, .. } => (Role::Up, *term),
                _ => continue,
            };
            if (role, term) != (now.role, now.term) {
                let from_ms = event.at_ms;
                let before = std::mem::replace(&mut now, Stretch { from_ms, to_ms: 0, role, term });
                stretches.push(Stretch { to_ms: from_ms, ..before });
            }
        }
        stretches.push(Stretch { to_ms: self.end_ms, ..now });
        stretches
    }

    fn lane(&mut self, node: usize, y: f64) {
        let called = node_name(node);
        self.text(10.0, y + 22.0, "font-size='13'", &called);
        for Stretch { from_ms, to_ms, role, term } in self.stretches(node) {
            let (x, end) = (self.x(from_ms), self.x(to_ms));
            let (attributes, name) = match role {
                Role::Down => ("fill='white' stroke='#999999' stroke-dasharray='3 3'", "down"),
                Role::Up => ("fill='#e6e9ee'", "follows"),
                Role::Leads => ("fill='#7fb0e8'", "leads"),
            };
            let title = format!("{called} {name}, term {term}, {from_ms} to {to_ms} ms");
            self.bar((x, y + 6.0), (end - x, 20.0), attributes, &title);
            if term > 0 && role != Role::Down && end - x > 20.0 {
                self.text(x + 3.0, y + 20.0, "font-size='10' fill='#223344'", &format!("t{term}"));
            }
        }
        let mut granted = None;
        for event in self.outcome.events.iter().filter(|event| event.node == Some(node)) {
            match &event.what {
                EventKind::Granted { term } => granted = Some((event.at_ms, *term)),
                EventKind::GrantEnded { .. } | EventKind::Ended { .. } => {
                    self.grant(node, y, granted.take(), event.at_ms);
                }
                EventKind::Refused { by, text } => {
                    let title = format!("{} ms: {called} refused by {by}: {text}", event.at_ms);
                    self.bar((self.x(event.at_ms), y + 32.0), (3.0, 6.0), "fill='#d08000'", &title);
                }
                EventKind::Installed { height } => {
                    let title = format!("{} ms: {called} snapshot at {height}", event.at_ms);
                    self.bar((self.x(event.at_ms), y + 32.0), (3.0, 6.0), "fill='#7040b0'", &title);
                }
                EventKind::Alarm { text } => {
                    let title = format!("{} ms: {called} asks for a person: {text}", event.at_ms);
                    self.bar((self.x(event.at_ms), y + 32.0), (5.0, 6.0), "fill='#b00020'", &title);
                }
                _ => {}
            }
        }
        self.grant(node, y, granted, self.end_ms);
    }

    fn grant(&mut self, node: usize, y: f64, granted: Option<(u64, u64)>, to_ms: u64) {
        let Some((from_ms, term)) = granted else { return };
        let (x, end) = (self.x(from_ms), self.x(to_ms));
        let called = node_name(node);
        let title = format!("{called} may produce in term {term}, {from_ms} to {to_ms} ms");
        self.bar((x, y + 26.0), (end - x, 4.0), "fill='#2e9e52'", &title);
    }

    /// Where deeds end, and where the promise was broken.
    fn marks(&mut self, top: f64, bottom: f64) {
        let rest = self.outcome.events.iter().find(|event| event.what == EventKind::RestBegins);
        if let Some(rest) = rest {
            let x = self.x(rest.at_ms);
            self.line(x, (top, bottom), "stroke='#1b7f3b' stroke-width='1.5'");
            self.text(x + 3.0, bottom - 2.0, "fill='#1b7f3b'", "rest");
        }
        if let Some(broken) = &self.outcome.broken {
            let x = self.x(broken.at_ms);
            self.line(x, (top - 8.0, bottom + 4.0), "stroke='#b00020' stroke-width='2'");
            let promise = broken.promise.clone();
            self.text(
                x - 3.0,
                bottom + 32.0,
                "text-anchor='end' fill='#b00020' font-weight='bold'",
                &promise,
            );
        }
    }

    fn legend(&mut self, y: f64) {
        let entries = [
            ("#7fb0e8", "leads"),
            ("#e6e9ee", "follows"),
            ("#2e9e52", "may produce"),
            ("#f6c6c6", "done to it"),
            ("#d08000", "refused"),
            ("#7040b0", "snapshot"),
            ("#b00020", "asks for a person, broken"),
        ];
        let mut x = LEFT;
        for (colour, name) in entries {
            self.bar((x, y), (10.0, 10.0), &format!("fill='{colour}'"), name);
            self.text(x + 14.0, y + 9.0, "fill='#333333'", name);
            x += 34.0 + LETTER * name.len() as f64;
        }
    }
}

/// Blocks of different terms.
const COLOURS: [&str; 6] = ["#1f6fc0", "#c05a00", "#1b7f3b", "#8a3fb0", "#a08000", "#008a90"];

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baton_messages::types::Hash;

    use super::*;
    use crate::history::{Coverage, Event};

    fn event(at_ms: u64, node: usize, what: EventKind) -> Event {
        Event { at_ms, node: Some(node), what }
    }

    #[test]
    fn a_picture_has_every_role_and_grant_and_nothing_that_breaks_it() {
        let events = vec![
            event(100, 0, EventKind::Leads { term: 3 }),
            event(120, 0, EventKind::Granted { term: 3 }),
            event(130, 1, EventKind::Refused { by: "guard".to_owned(), text: "a < b & c".to_owned() }),
            event(900, 0, EventKind::Ended { reason: "crash".to_owned() }),
        ];
        let outcome = Outcome {
            broken: None,
            trace: Hash::default(),
            coverage: Coverage::default(),
            events,
            virtual_time: Duration::from_secs(1),
        };
        let svg = timeline(&History::of(1), &outcome);
        assert!(svg.contains("n0 leads, term 3, 100 to 900 ms"), "{svg}");
        assert!(svg.contains("n0 may produce in term 3, 120 to 900 ms"), "{svg}");
        assert!(svg.contains("a &lt; b &amp; c") && !svg.contains("a < b"), "{svg}");
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }
}
