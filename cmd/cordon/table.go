package main

import "strings"

// maxCell is how many columns a cell of a listing takes at most; the JSON has
// the whole.
const maxCell = 60

// cell is a text with its tone.
type cell struct {
	text string
	tone tone
}

func text(words string) cell { return cell{text: words} }

// texts makes plain cells.
func texts(words ...string) []cell {
	cells := make([]cell, len(words))
	for i, w := range words {
		cells[i] = text(w)
	}
	return cells
}

// table writes rows below their heads, each column as wide as it must be.
// Empty cells show as "-".
func (p *page) table(heads []string, rows [][]cell) {
	shown := make([][]cell, 0, len(rows)+1)
	head := make([]cell, len(heads))
	for i, h := range heads {
		head[i] = cell{h, bold}
	}
	for _, row := range append([][]cell{head}, rows...) {
		shown = append(shown, fit(row))
	}
	widths := make([]int, len(heads))
	for _, row := range shown {
		for i, c := range row {
			widths[i] = max(widths[i], width(c.text))
		}
	}
	for _, row := range shown {
		p.row(row, widths)
	}
}

// fit makes the cells of a row printable and short.
func fit(row []cell) []cell {
	fitted := make([]cell, len(row))
	for i, c := range row {
		fitted[i] = cell{shorten(printable(c.text), maxCell), c.tone}
		if c.text == "" {
			fitted[i].text = "-"
		}
	}
	return fitted
}

func (p *page) row(row []cell, widths []int) {
	for i, c := range row {
		p.paint(c, c.text)
		if i < len(row)-1 {
			p.WriteString(strings.Repeat(" ", widths[i]-width(c.text)+2))
		}
	}
	p.WriteString("\n")
}
