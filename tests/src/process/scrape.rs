//! A scrape of `/metrics`, read as strictly as OpenMetrics is written.

use std::collections::{BTreeMap, BTreeSet};

/// Labels in the order of their names.
type Labels = BTreeMap<String, String>;

/// Every series of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    series: BTreeMap<(String, Labels), f64>,
    types: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads a scrape: families one after the other, each described before its samples, no series
    /// twice, histograms that add up, and an end.
    ///
    /// # Errors
    ///
    /// The line and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reading = Reading::default();
        let body = text.strip_suffix("# EOF\n").ok_or("the text does not end in `# EOF` and a line feed")?;
        for line in body.lines() {
            reading.line(line).map_err(|wrong| format!("{wrong}: {line}"))?;
        }
        reading.done.check_histograms()?;
        Ok(reading.done)
    }

    /// The sum over all series of a name; `None` when there is none.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> =
            self.series.iter().filter(|((found, _), _)| found == name).map(|(_, value)| *value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Every value that a label of a name has.
    #[must_use]
    pub fn labels(&self, name: &str, label: &str) -> Vec<&str> {
        let all = self.series.keys().filter(|(found, _)| found == name);
        all.filter_map(|(_, labels)| labels.get(label)).map(String::as_str).collect()
    }

    /// All labels of all series.
    pub fn series(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, String>)> {
        self.series.keys().map(|(name, labels)| (name.as_str(), labels))
    }

    /// The names of all families.
    #[must_use]
    pub fn families(&self) -> BTreeSet<&str> {
        self.types.keys().map(String::as_str).collect()
    }

    fn check_histograms(&self) -> Result<(), String> {
        for (family, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((name, labels), value) in &self.series {
                if *name == format!("{family}_bucket") {
                    let mut labels = labels.clone();
                    let le = labels.remove("le").ok_or(format!("{family}: a bucket without `le`"))?;
                    let le = number(&le).ok_or(format!("{family}: {le} is no bound"))?;
                    buckets.entry(labels).or_default().push((le, *value));
                }
            }
            for (labels, mut bounds) in buckets {
                bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
                let rises = bounds.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
                let count = self.series.get(&(format!("{family}_count"), labels));
                let last = bounds.last().copied();
                if !rises || last.is_none_or(|(le, all)| !le.is_infinite() || Some(&all) != count) {
                    return Err(format!("{family}: the buckets do not add up"));
                }
            }
        }
        Ok(())
    }
}

/// A scrape read half way.
#[derive(Default)]
struct Reading {
    done: Scrape,
    family: String,
    described: BTreeSet<(String, String)>,
}

impl Reading {
    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        match line.strip_prefix("# ") {
            Some(about) => self.about(about),
            None => self.sample(line),
        }
    }

    fn about(&mut self, about: &str) -> Result<(), &'static str> {
        let mut words = about.splitn(3, ' ');
        let (word, name, rest) = (words.next(), words.next().unwrap_or_default(), words.next());
        let word =
            word.filter(|word| ["HELP", "TYPE", "UNIT"].contains(word)).ok_or("not HELP, TYPE or UNIT")?;
        let rest = rest.ok_or("nothing is said about it")?;
        if !is_name(name) {
            return Err("not a name");
        }
        if !self.described.insert((word.to_owned(), name.to_owned())) {
            return Err("said twice");
        }
        if self.family != name {
            if self.done.types.contains_key(name) {
                return Err("the family was over already");
            }
            name.clone_into(&mut self.family);
        }
        match word {
            "TYPE" if !["gauge", "counter", "histogram", "info"].contains(&rest) => Err("an unknown type"),
            "TYPE" => {
                self.done.types.insert(name.to_owned(), rest.to_owned());
                Ok(())
            }
            "UNIT" if !name.ends_with(&format!("_{rest}")) => Err("the name does not end in the unit"),
            _ => Ok(()),
        }
    }

    fn sample(&mut self, line: &str) -> Result<(), &'static str> {
        let end = line.find(['{', ' ']).ok_or("no value")?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Labels::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = read_labels(inside, &mut labels)?;
        }
        let value = rest.strip_prefix(' ').and_then(number).ok_or("not a value")?;
        let kind = self.done.types.get(&self.family).ok_or("a sample without a type")?;
        let suffixes: &[&str] = match kind.as_str() {
            "gauge" => &[""],
            "counter" => &["_total"],
            "info" => &["_info"],
            _ => &["_bucket", "_sum", "_count"],
        };
        let suffix = name.strip_prefix(&*self.family).filter(|suffix| suffixes.contains(suffix));
        let suffix = suffix.ok_or("a sample of another family, or with the wrong suffix")?;
        if kind != "gauge" && suffix != "_sum" && value < 0.0 {
            return Err("what is counted is never negative");
        }
        match self.done.series.insert((name.to_owned(), labels), value) {
            None => Ok(()),
            Some(_) => Err("the series is there twice"),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        _ => text.parse().ok().filter(|value: &f64| value.is_finite()),
    }
}

fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(letter) && name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit())
}

/// Reads `name="value",…}`; returns what follows.
fn read_labels<'a>(mut text: &'a str, labels: &mut Labels) -> Result<&'a str, &'static str> {
    loop {
        let (name, rest) = text.split_once("=\"").ok_or("a label without a value")?;
        if !is_name(name) {
            return Err("not the name of a label");
        }
        let (value, rest) = read_value(rest)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("a label is there twice");
        }
        match rest.strip_prefix(',') {
            Some(next) => text = next,
            None => return rest.strip_prefix('}').ok_or("labels without an end"),
        }
    }
}

/// Reads up to the quotation mark that ends a value; returns what follows.
fn read_value(text: &str) -> Result<(String, &str), &'static str> {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match letters.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                _ => return Err("an unknown escape"),
            }),
            _ => value.push(letter),
        }
    }
    Err("a value without an end")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a A thing\n# TYPE a gauge\na{x=\"1\\\"\\\\\\n\"} 1\na{x=\"2\"} -2.5\n\
        # TYPE b counter\nb_total 7\n# TYPE c_seconds histogram\n# UNIT c_seconds seconds\nc_seconds_sum 1.5\n\
        c_seconds_count 3\nc_seconds_bucket{le=\"0.5\"} 1\nc_seconds_bucket{le=\"+Inf\"} 3\n# EOF\n";

    #[test]
    fn a_valid_text_is_read() {
        let scrape = Scrape::parse(GOOD).unwrap();
        assert_eq!(
            (scrape.value("a"), scrape.value("b_total"), scrape.value("d")),
            (Some(-1.5), Some(7.0), None)
        );
        assert_eq!(scrape.labels("a", "x"), ["1\"\\\n", "2"]);
        assert_eq!(scrape.families(), BTreeSet::from(["a", "b", "c_seconds"]));
    }

    #[test]
    fn everything_else_is_refused() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("x=\"2\"", "x=\"1\\\"\\\\\\n\""),
            ("x=\"2\"", "x=\"2\",x=\"3\""),
            ("x=\"2\"", "x=2"),
            ("x=\"2\"", "x=\"\\t\""),
            ("x=\"2\"", "9=\"2\""),
            ("-2.5", "two"),
            ("-2.5", "NaN"),
            ("b_total 7", "b 7"),
            ("b_total 7", "b_total -7"),
            ("b_total 7", "other_total 7"),
            ("# TYPE b counter", "# TYPE a counter"),
            ("# TYPE b counter", "# TYPE b thing"),
            ("# TYPE b counter\n", ""),
            ("# UNIT c_seconds seconds", "# UNIT c_seconds bytes"),
            ("le=\"0.5\"} 1", "le=\"0.5\"} 4"),
            ("c_seconds_count 3", "c_seconds_count 4"),
            ("le=\"+Inf\"", "le=\"9\""),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let bad = GOOD.replacen(from, to, 1);
            assert!(Scrape::parse(&bad).is_err(), "{from} -> {to}");
        }
    }
}
