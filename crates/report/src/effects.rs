//! A table of what each layer alone does to a network at several levels (widths, sparsities), for pages and terminals, with its charts.
use crate::chart::{Axes, Series, digits, lines};
use crate::html::{escape, table};
use crate::record::{MetricRecord, decibels};
use crate::table::NOTHING;
use crate::terminal::columns;
use crate::text::{self, line};

/// Effects of layers at levels.
pub(crate) struct Effects<'a> {
    /// What the levels are: `width`.
    pub(crate) what: &'static str,
    /// Several of them, as the beginning of a title: `Widths`.
    pub(crate) plural: &'static str,
    /// Headings of the columns with what a row is, the row's name first.
    pub(crate) heads: Vec<&'static str>,
    /// The levels, long (`3 bits`) and short (`3`).
    pub(crate) levels: Vec<(String, String)>,
    /// Loss of the unchanged network.
    pub(crate) loss: Option<f64>,
    /// Metric of the unchanged network.
    pub(crate) metric: Option<(&'a MetricRecord, f64)>,
    /// How a chosen level is written.
    pub(crate) write_level: fn(f64, f64) -> String,
    pub(crate) rows: Vec<EffectRow>,
}

/// One layer, or several that have one level.
pub(crate) struct EffectRow {
    /// What it is, by `heads`.
    pub(crate) cells: Vec<String>,
    /// The level that was chosen for it.
    pub(crate) chosen: Option<f64>,
    /// By level.
    pub(crate) effects: Vec<Option<Measured>>,
}

/// What was measured at a level.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    /// Power of the change of the outputs over that of the outputs.
    pub(crate) noise: f64,
    pub(crate) loss: Option<f64>,
    pub(crate) metric: Option<f64>,
}

impl Measured {
    fn sqnr_db(self) -> Option<f64> {
        decibels(self.noise)
    }
}

/// How headings of losses begin.
const LOSS: &str = "loss ";

impl Effects<'_> {
    fn is_chosen(&self) -> bool {
        self.rows.iter().any(|r| r.chosen.is_some())
    }

    /// The heading and the rows.
    fn cells(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let mut head = vec![String::new()];
        head.extend(self.heads.iter().map(|h| h.to_string()));
        let chosen = self.is_chosen();
        head.extend(chosen.then(|| "chosen".to_string()));
        head.extend(self.levels.iter().map(|(long, _)| long.clone()));
        let changes = self.loss.zip(self.metric);
        if let Some((_, (metric, _))) = changes {
            head.extend(self.levels.iter().map(|(_, short)| format!("{LOSS}{short}")));
            head.extend(self.levels.iter().map(|(_, short)| format!("{} at {short}", metric.label)));
        }
        let decibels = |m: &Option<Measured>| m.map_or(NOTHING.into(), |m| m.sqnr_db().map_or("∞".into(), |db| format!("{db:.1} dB")));
        let row = |(i, row): (usize, &EffectRow)| {
            let mut cells = vec![(i + 1).to_string()];
            cells.extend(row.cells.iter().cloned());
            cells.extend(chosen.then(|| row.chosen.map_or(NOTHING.into(), |level| (self.write_level)(level, 0.0))));
            cells.extend(row.effects.iter().map(decibels));
            if let Some((loss, (metric, score))) = changes {
                let of = |f: &dyn Fn(Measured) -> Option<String>, m: &Option<Measured>| m.and_then(f).unwrap_or(NOTHING.into());
                cells.extend(row.effects.iter().map(|m| of(&|m| Some(text::signed(m.loss? - loss)), m)));
                cells.extend(row.effects.iter().map(|m| of(&|m| Some(metric.write_change(m.metric? - score)), m)));
            }
            cells
        };
        (head, self.rows.iter().enumerate().map(row).collect())
    }

    /// Charts and table of a page.
    pub(crate) fn body(&self) -> String {
        let (head, rows) = self.cells();
        let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| escape(c)).collect()).collect();
        format!("<div class=\"charts\">{}</div>{}", self.charts(), table(&head, &rows))
    }

    /// The table for a terminal: signal to noise, and the change of the metric.
    pub(crate) fn text(&self) -> String {
        let (head, rows) = self.cells();
        let shown: Vec<usize> = (1..head.len()).filter(|c| !head[*c].starts_with(LOSS)).collect();
        let pick = |cells: &Vec<String>| shown.iter().map(|c| line(&cells[*c])).collect::<Vec<String>>();
        columns(&pick(&head), &rows.iter().map(pick).collect::<Vec<_>>())
    }

    fn charts(&self) -> String {
        let series = |value: &dyn Fn(Measured) -> Option<f64>| -> Vec<Series> {
            let points = |(level, (name, _)): (usize, &(String, String))| {
                let found = self.rows.iter().enumerate().filter_map(|(i, r)| Some(((i + 1) as f64, value((*r.effects.get(level)?)?)?)));
                Series { name: name.clone(), points: found.collect() }
            };
            self.levels.iter().enumerate().map(points).collect()
        };
        let title = format!("Signal to noise of the outputs by {}, row by row", self.what);
        let axes = Axes {
            title: &title,
            x: "row",
            y: "signal to noise",
            write_x: |v, _| format!("{v:.0}"),
            write_y: |v, step| if step > 0.0 { format!("{v:.*} dB", digits(step)) } else { format!("{v:.1} dB") },
            least_step: 1.0,
            named: false,
            may_be_logarithmic: false,
        };
        let mut out = lines(&axes, &series(&Measured::sqnr_db));
        if let Some(loss) = self.loss {
            let write_y: fn(f64, f64) -> String = |v, step| if step > 0.0 { format!("{v:.*}", digits(step)) } else { text::signed(v) };
            let title = format!("Change of the loss by {}, row by row", self.what);
            let axes = Axes { title: &title, y: "change of the loss", write_y, ..axes };
            out += &lines(&axes, &series(&|m| Some(m.loss? - loss)));
        }
        if let Some((metric, score)) = self.metric {
            let write_y: fn(f64, f64) -> String = |v, step| if step > 0.0 { format!("{v:.*}", digits(step)) } else { text::signed(v) };
            let title = format!("Change of {} by {}, row by row", metric.label, self.what);
            let axes = Axes { title: &title, y: "change", write_y, ..axes };
            out += &lines(&axes, &series(&|m| Some(m.metric? - score)));
        }
        if self.is_chosen() {
            let points = self.rows.iter().enumerate().filter_map(|(i, r)| Some(((i + 1) as f64, r.chosen?))).collect();
            let title = format!("{} that were chosen, row by row", self.plural);
            let axes = Axes { title: &title, y: self.what, write_y: self.write_level, ..axes };
            out += &lines(&axes, &[Series { name: "chosen".into(), points }]);
        }
        out
    }
}
