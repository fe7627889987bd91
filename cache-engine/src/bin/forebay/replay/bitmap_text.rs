//! Text on a bitmap, without a font file: glyphs of Noto Sans Mono that were drawn beforehand.
//!
//! Absent: kerning, ligatures, and characters beyond ASCII, which appear as question marks.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters_backend::FontTransform;
use plotters_backend::text_anchor::{HPos, Pos, VPos};

/// A text, where it belongs, and how it looks.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) at: (i32, i32),
    pub(super) anchor: Pos,
    pub(super) transform: FontTransform,
    pub(super) rgb: (u8, u8, u8),
    /// Pixels of a line's height.
    pub(super) height: f64,
    pub(super) is_bold: bool,
}

/// The nearest of the heights that there are.
fn raster_height(height: f64) -> RasterHeight {
    match height {
        ..22.0 => RasterHeight::Size20,
        22.0..28.0 => RasterHeight::Size24,
        _ => RasterHeight::Size32,
    }
}

fn weight(is_bold: bool) -> FontWeight {
    if is_bold { FontWeight::Bold } else { FontWeight::Regular }
}

/// Width and height in pixels.
pub(super) fn size(text: &str, height: f64, is_bold: bool) -> (u32, u32) {
    let height = raster_height(height);
    let width = get_raster_width(weight(is_bold), height) * text.chars().count();
    (width as u32, height.val() as u32)
}

impl Text {
    /// Calls `dot` with each pixel that the text darkens, and how much: 0 to 255.
    pub(super) fn draw(&self, mut dot: impl FnMut(i32, i32, u8)) {
        let (width, height) = size(&self.text, self.height, self.is_bold);
        let (width, height) = (width as i32, height as i32);
        let left = match self.anchor.h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match self.anchor.v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        let (raster_height, weight) = (raster_height(self.height), weight(self.is_bold));
        let mut x = left;
        for character in self.text.chars() {
            let glyph = get_raster(character, weight, raster_height)
                .or_else(|| get_raster('?', weight, raster_height));
            let Some(glyph) = glyph else { continue };
            for (row, dots) in glyph.rows().enumerate() {
                for (column, ink) in dots.iter().enumerate().filter(|(_, ink)| **ink > 0) {
                    let here = (x + column as i32, top + row as i32);
                    let (x, y) = self.transform.transform(here.0, here.1);
                    dot(self.at.0 + x, self.at.1 + y, *ink);
                }
            }
            x += glyph.width() as i32;
        }
    }
}
