//! Hit ratio over cache size, drawn: one panel for each trace and line size, one line for each
//! policy.

use std::path::{Path, PathBuf};

use cache_engine::advice::simulate::Policy;
use cache_engine::cache::LineSize;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::png_image;
use super::report::{Replayed, Row};
use crate::failure::Failure;
use crate::output::table;

/// A file to draw into; its ending says how.
#[derive(Clone, Debug)]
pub(super) enum PlotFile {
    Svg(PathBuf),
    Png(PathBuf),
}

impl PlotFile {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("svg") => Ok(Self::Svg(path)),
            Some("png") => Ok(Self::Png(path)),
            _ => Err(format!("plot `{text}`: must end in .svg or .png")),
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Svg(path) | Self::Png(path) => path,
        }
    }
}

/// Pixels of a panel.
const PANEL: (u32, u32) = (820, 560);
/// Pixels above the panels, for the legend.
const LEGEND: u32 = 90;
/// Pixels around everything.
const MARGIN: u32 = 24;

const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const FAINT: RGBColor = RGBColor(0xe3, 0xe6, 0xea);
const GREY: RGBColor = RGBColor(0x6e, 0x77, 0x81);
const FONT: &str = "sans-serif";
/// Sizes of texts, in pixels of a line.
const LARGE: i32 = 28;
const NORMAL: i32 = 24;
const SMALL: i32 = 20;

/// Colours that differ for every eye (after Okabe and Ito), and what a policy is called.
fn look(policy: Policy) -> (RGBColor, u32, &'static str) {
    match policy {
        Policy::Ours => (RGBColor(0x00, 0x72, 0xb2), 4, "this cache"),
        Policy::S3Fifo => (RGBColor(0xe6, 0x9f, 0x00), 2, "S3-FIFO"),
        Policy::Lru => (RGBColor(0xcc, 0x79, 0xa7), 2, "LRU"),
        Policy::Belady => (RGBColor(0x00, 0x9e, 0x73), 2, "Belady (knows the future)"),
    }
}

/// Draws what was found into a file.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(replayed: &[Replayed], file: &PlotFile) -> Result<(), Failure> {
    let path = file.path();
    let failed = |message: String| Failure::new(format!("{}: {message}", path.display()));
    let bytes = match file {
        PlotFile::Svg(_) => svg(replayed).map_err(failed)?.into_bytes(),
        PlotFile::Png(_) => png(replayed).map_err(failed)?,
    };
    std::fs::write(path, bytes).map_err(|error| Failure::because(path.display().to_string(), error))
}

fn svg(replayed: &[Replayed]) -> Result<String, String> {
    let panels = panels(replayed);
    let mut text = String::new();
    let backend = SVGBackend::with_string(&mut text, size(panels.len()));
    draw(backend.into_drawing_area(), &panels).map_err(|error| error.to_string())?;
    Ok(text)
}

fn png(replayed: &[Replayed]) -> Result<Vec<u8>, String> {
    let panels = panels(replayed);
    png_image::encode(size(panels.len()), |image| draw(image.into_drawing_area(), &panels))
}

/// The rows of one trace and line size.
struct Panel<'rows> {
    title: String,
    rows: Vec<&'rows Row>,
}

fn panels(replayed: &[Replayed]) -> Vec<Panel<'_>> {
    let mut panels = Vec::new();
    for replayed in replayed {
        let mut line_sizes: Vec<LineSize> = replayed.rows.iter().map(|r| r.line_size).collect();
        line_sizes.dedup();
        for line_size in line_sizes {
            let rows = replayed.rows.iter().filter(|row| row.line_size == line_size);
            let title = format!("{}, lines of {line_size}", table::printable(&replayed.name));
            panels.push(Panel { title, rows: rows.collect() });
        }
    }
    panels
}

/// How many panels stand beside each other, and below.
fn grid(panels: usize) -> (usize, usize) {
    let columns = if panels > 1 { 2 } else { 1 };
    (columns, panels.div_ceil(columns))
}

fn size(panels: usize) -> (u32, u32) {
    let (columns, rows) = grid(panels);
    let (width, height) = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
    (width + 2 * MARGIN, height + LEGEND + 2 * MARGIN)
}

type Outcome<Backend> = Result<(), DrawingAreaErrorKind<<Backend as DrawingBackend>::ErrorType>>;

fn draw<Backend: DrawingBackend>(
    area: DrawingArea<Backend, Shift>,
    panels: &[Panel<'_>],
) -> Outcome<Backend> {
    area.fill(&WHITE)?;
    let area = area.margin(MARGIN, MARGIN, MARGIN, MARGIN);
    let (legend, rest) = area.split_vertically(LEGEND);
    draw_legend(&legend, panels)?;
    let (columns, rows) = grid(panels.len());
    for (panel, area) in panels.iter().zip(rest.split_evenly((rows, columns))) {
        draw_panel(&area, panel)?;
    }
    area.present()
}

fn draw_legend<Backend: DrawingBackend>(
    area: &DrawingArea<Backend, Shift>,
    panels: &[Panel<'_>],
) -> Outcome<Backend> {
    let title = (FONT, LARGE, FontStyle::Bold).into_font().color(&INK);
    area.draw(&Text::new("Reads answered by the cache alone", (0, 0), title))?;
    let mut policies: Vec<Policy> =
        panels.iter().flat_map(|panel| panel.rows.iter().map(|row| row.policy)).collect();
    policies.sort_unstable();
    policies.dedup();
    let mut x = 0;
    for policy in policies {
        let (color, width, name) = look(policy);
        let y = 58;
        area.draw(&PathElement::new([(x, y), (x + 36, y)], color.stroke_width(width)))?;
        area.draw(&Circle::new((x + 18, y), width + 2, color.filled()))?;
        let style = (FONT, SMALL).into_font().color(&INK);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(name, (x + 46, y), style))?;
        x += 46 + 11 * name.len() as i32 + 34;
    }
    Ok(())
}

fn draw_panel<Backend: DrawingBackend>(
    area: &DrawingArea<Backend, Shift>,
    panel: &Panel<'_>,
) -> Outcome<Backend> {
    let places = panel.rows.iter().map(|row| place(row));
    let (mut left, mut right, mut top) = (f64::INFINITY, f64::NEG_INFINITY, 0.0f64);
    for (x, y) in places {
        (left, right, top) = (left.min(x), right.max(x), top.max(y));
    }
    // One size alone still needs an axis.
    let (left, right) = (left.floor().min(right - 1.0), right.ceil().max(left + 1.0));
    let top = ((top / 10.0).floor() * 10.0 + 10.0).min(105.0);
    let title = (FONT, NORMAL, FontStyle::Bold).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .margin_right(28)
        .margin_bottom(16)
        .caption(&panel.title, title)
        .x_label_area_size(72)
        .y_label_area_size(92)
        .build_cartesian_2d(left..right, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GREY)
        .label_style((FONT, SMALL).into_font().color(&INK))
        .axis_desc_style((FONT, SMALL).into_font().color(&GREY))
        .x_desc("size of the cache")
        .x_labels(10)
        .y_labels(8)
        .x_label_formatter(&|power| size_label(*power))
        .y_label_formatter(&|percent| format!("{percent:.0} %"))
        .draw()?;
    let mut policies: Vec<Policy> = panel.rows.iter().map(|row| row.policy).collect();
    // Ours last, on top.
    policies.sort_unstable_by(|one, other| other.cmp(one));
    policies.dedup();
    for policy in policies {
        let (color, width, _) = look(policy);
        let rows = panel.rows.iter().filter(|row| row.policy == policy);
        let mut points: Vec<_> = rows.map(|row| place(row)).collect();
        points.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(width)))?;
        let dots = points.into_iter().map(|point| Circle::new(point, width + 2, color.filled()));
        chart.draw_series(dots)?;
    }
    Ok(())
}

/// Where a row stands: powers of two bytes, and per cent.
fn place(row: &Row) -> (f64, f64) {
    let power = (row.outcome.size_bytes.max(1) as f64).log2();
    (power, row.outcome.request_hit_ratio() * 100.0)
}

/// A power of two bytes, in words; nothing between them.
fn size_label(power: f64) -> String {
    if (power - power.round()).abs() > 1e-6 || !(0.0..64.0).contains(&power) {
        return String::new();
    }
    table::bytes(1 << power.round() as u32).replace(".0 ", " ")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::example;
    use super::*;

    #[test]
    fn endings_decide() {
        assert!(matches!(PlotFile::parse("a/b.svg"), Ok(PlotFile::Svg(_))));
        assert!(matches!(PlotFile::parse("b.png"), Ok(PlotFile::Png(_))));
        for text in ["b.pdf", "svg", "b.SVG", ""] {
            assert!(PlotFile::parse(text).is_err_and(|error| error.contains(".svg or .png")));
        }
    }

    #[test]
    fn a_drawing_has_its_words_and_lines() {
        let text = svg(&[example(), example(), example()]).expect("drawn");
        assert_eq!(text.matches("disk.csv, lines of 4k").count(), 3, "a panel each");
        for expected in ["this cache", "LRU", "size of the cache", "1 MiB", "50 %", "#0072B2"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains("S3-FIFO"), "only what was replayed");
    }

    #[test]
    fn an_image_has_its_size_and_colours() {
        let bytes = png(&[example()]).expect("drawn");
        let decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        let mut reader = decoder.read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("small")];
        let frame = reader.next_frame(&mut pixels).expect("whole");
        assert_eq!((frame.width, frame.height), size(1));
        let has = |rgb: [u8; 3]| pixels.chunks_exact(3).any(|pixel| pixel == rgb);
        assert!(has([0x00, 0x72, 0xb2]) && has([0xcc, 0x79, 0xa7]), "both lines are there");
        let dark = pixels.chunks_exact(3).filter(|pixel| pixel.iter().all(|c| *c < 0x60)).count();
        assert!(dark > 500, "there is text: {dark} pixels");
    }

    #[test]
    fn one_size_alone_is_drawn_too() {
        let mut one = example();
        one.rows.truncate(1);
        assert!(svg(&[one]).is_ok());
    }

    #[test]
    fn sizes_are_labelled_at_powers_of_two() {
        assert_eq!(size_label(20.0), "1 MiB");
        assert_eq!(size_label(24.0), "16 MiB");
        assert_eq!(size_label(20.5), "");
        assert_eq!(size_label(99.0), "");
    }
}
