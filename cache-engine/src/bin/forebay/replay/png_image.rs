//! A PNG image as a backend of `plotters`: smooth lines, and text without a font file.
//!
//! ```text
//!   shapes ──×3──▶ bitmap of nine times the pixels ──mean of nine──▶ image ──▶ PNG
//!   texts ─────────────────────────────────────────────────────────▶ on top
//! ```

use plotters::backend::BitMapBackend;
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle,
};

use super::bitmap_text::{self, Text};

/// Dots to a pixel, each way.
const SCALE: u32 = 3;

type Failed<'dots> = DrawingErrorKind<<BitMapBackend<'dots> as DrawingBackend>::ErrorType>;

/// The image while it is drawn.
pub(super) struct PngImage<'dots, 'texts> {
    dots: BitMapBackend<'dots>,
    texts: &'texts mut Vec<Text>,
    size: (u32, u32),
}

/// Draws an image and encodes it.
///
/// # Errors
/// What `draw` says.
pub(super) fn encode<Error: std::fmt::Display>(
    size: (u32, u32),
    draw: impl FnOnce(PngImage<'_, '_>) -> Result<(), Error>,
) -> Result<Vec<u8>, String> {
    let (width, height) = size;
    let mut dots = vec![255; (width * height * SCALE * SCALE * 3) as usize];
    let mut texts = Vec::new();
    let backend = BitMapBackend::with_buffer(&mut dots, (width * SCALE, height * SCALE));
    let image = PngImage { dots: backend, texts: &mut texts, size };
    draw(image).map_err(|error| error.to_string())?;
    let mut pixels = shrink(&dots, size);
    for text in &texts {
        text.draw(|x, y, ink| blend(&mut pixels, size, (x, y), text.rgb, ink));
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(&pixels)?;
        writer.finish()
    });
    written.map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Each pixel is the mean of its dots.
fn shrink(dots: &[u8], (width, height): (u32, u32)) -> Vec<u8> {
    let row = (width * SCALE * 3) as usize;
    let mut pixels = Vec::with_capacity((width * height * 3) as usize);
    for (y, x, channel) in (0..height as usize)
        .flat_map(|y| (0..width as usize).map(move |x| (y, x)))
        .flat_map(|(y, x)| (0..3).map(move |channel| (y, x, channel)))
    {
        let scale = SCALE as usize;
        let sum: u32 = (0..scale * scale)
            .map(|dot| {
                let (down, right) = (y * scale + dot / scale, x * scale + dot % scale);
                u32::from(dots[down * row + right * 3 + channel])
            })
            .sum();
        pixels.push((sum / (SCALE * SCALE)) as u8);
    }
    pixels
}

fn blend(
    pixels: &mut [u8],
    (width, height): (u32, u32),
    (x, y): (i32, i32),
    rgb: (u8, u8, u8),
    ink: u8,
) {
    let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
    if x >= width || y >= height {
        return;
    }
    let at = ((y * width + x) * 3) as usize;
    for (pixel, color) in pixels[at..at + 3].iter_mut().zip([rgb.0, rgb.1, rgb.2]) {
        let (ink, paper) = (u32::from(ink), u32::from(*pixel));
        *pixel = ((u32::from(color) * ink + paper * (255 - ink)) / 255) as u8;
    }
}

fn scaled((x, y): BackendCoord) -> BackendCoord {
    // The middle of the pixel's dots.
    let scale = SCALE as i32;
    (x * scale + scale / 2, y * scale + scale / 2)
}

/// A style with its width in dots.
struct Scaled {
    color: BackendColor,
    width: u32,
}

impl Scaled {
    fn of(style: &impl BackendStyle) -> Self {
        Self { color: style.color(), width: style.stroke_width() * SCALE }
    }
}

impl BackendStyle for Scaled {
    fn color(&self) -> BackendColor {
        self.color
    }

    fn stroke_width(&self) -> u32 {
        self.width
    }
}

impl<'dots> DrawingBackend for PngImage<'dots, '_> {
    type ErrorType = <BitMapBackend<'dots> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Result<(), Failed<'dots>> {
        self.dots.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), Failed<'dots>> {
        self.dots.present()
    }

    fn draw_pixel(
        &mut self,
        point: BackendCoord,
        color: BackendColor,
    ) -> Result<(), Failed<'dots>> {
        let (x, y) = (point.0 * SCALE as i32, point.1 * SCALE as i32);
        let end = (x + SCALE as i32 - 1, y + SCALE as i32 - 1);
        self.dots.draw_rect((x, y), end, &color, true)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Result<(), Failed<'dots>> {
        // Along a path, which has a width where a line has none.
        self.dots.draw_path([scaled(from), scaled(to)], &Scaled::of(style))
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Result<(), Failed<'dots>> {
        self.dots.draw_rect(scaled(upper_left), scaled(bottom_right), &Scaled::of(style), fill)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Result<(), Failed<'dots>> {
        self.dots.draw_path(path.into_iter().map(scaled), &Scaled::of(style))
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Result<(), Failed<'dots>> {
        self.dots.draw_circle(scaled(center), radius * SCALE, &Scaled::of(style), fill)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        vertices: I,
        style: &S,
    ) -> Result<(), Failed<'dots>> {
        self.dots.fill_polygon(vertices.into_iter().map(scaled), &Scaled::of(style))
    }

    fn draw_text<TStyle: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &TStyle,
        at: BackendCoord,
    ) -> Result<(), Failed<'dots>> {
        self.texts.push(Text {
            text: text.to_owned(),
            at,
            anchor: style.anchor(),
            transform: style.transform(),
            rgb: style.color().rgb,
            height: style.size(),
            is_bold: matches!(style.style(), FontStyle::Bold),
        });
        Ok(())
    }

    fn estimate_text_size<TStyle: BackendTextStyle>(
        &self,
        text: &str,
        style: &TStyle,
    ) -> Result<(u32, u32), Failed<'dots>> {
        Ok(bitmap_text::size(text, style.size(), matches!(style.style(), FontStyle::Bold)))
    }
}
