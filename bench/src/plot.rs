//! Bars with the range of the rounds, as SVG.

use std::fmt::Write;

use crate::report::Spread;

const LEFT: f64 = 170.0;
const WIDTH: f64 = 520.0;
const STEP: f64 = 26.0;
const TOP: f64 = 40.0;

/// One bar for each variant.
pub fn bars(title: &str, more_is_better: bool, bars: &[(&str, Spread)]) -> String {
    let most = bars.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let height = TOP + STEP * bars.len() as f64 + 10.0;
    let width = LEFT + WIDTH + 100.0;
    let better = if more_is_better { "more" } else { "less" };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\">{title} ({better} is better; line: range of the rounds)</text>\n"
    );
    for (index, (name, spread)) in bars.iter().enumerate() {
        let y = TOP + STEP * index as f64;
        let x = |value: f64| LEFT + WIDTH * value / most;
        let colour = if name.starts_with("carnet") { "#2f6f9f" } else { "#9a9a9a" };
        let (text_y, line_y, end) = (y + 15.0, y + 10.0, x(spread.most) + 8.0);
        let bar = x(spread.median) - LEFT;
        let (from, to) = (x(spread.least), x(spread.most));
        let figure = figure(spread.median);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{text_y}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{bar:.1}\" height=\"20\" fill=\"{colour}\"/>\
             <line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{line_y}\" y2=\"{line_y}\" stroke=\"#000000\"/>\
             <text x=\"{end:.1}\" y=\"{text_y}\">{figure}</text>",
            LEFT - 8.0
        );
    }
    svg + "</svg>\n"
}

fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_has_the_whole_width() {
        let spread = |value| Spread { median: value, least: value, most: value };
        let svg = bars("x", true, &[("a", spread(10.0)), ("b", spread(5.0))]);
        assert!(svg.contains("width=\"520.0\"") && svg.contains("width=\"260.0\""), "{svg}");
    }
}
