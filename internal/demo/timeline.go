package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Step is one line of the timeline.
type Step struct {
	// At is when it happened, or was looked at: milliseconds since the start.
	At int64 `json:"at_ms"`
	// Scene is the letter of the scene, empty before the first.
	Scene string `json:"scene,omitempty"`
	Host  string `json:"host"`
	Text  string `json:"text"`
	// Result is "pass" or "fail" for a check, empty for what only happened.
	Result string `json:"result,omitempty"`
	// Problem says why a check failed.
	Problem string `json:"problem,omitempty"`
	// Latency is what was measured, in milliseconds.
	Latency *float64 `json:"latency_ms,omitempty"`
}

// SceneResult sums one scene up.
type SceneResult struct {
	Letter string `json:"letter"`
	Title  string `json:"title"`
	Checks int    `json:"checks"`
	Failed int    `json:"failed"`
	// Latencies are the scene's measured times in milliseconds, by their names.
	Latencies map[string]float64 `json:"latencies_ms,omitempty"`

	order []string
}

// Kept says how to reach a LAN that was left up.
type Kept struct {
	// Console is the URL of the console, on this machine's loopback.
	Console string `json:"console"`
	// TokenFile holds an administrator's token, for the console and the command line.
	TokenFile string `json:"token_file"`
	// Server is the command line's --server, Program the command line itself.
	Server  string `json:"server"`
	Program string `json:"program"`
	// Hosts are the process ids, on this machine, of the hosts' first processes.
	Hosts map[string]int `json:"hosts"`
}

// Report is what came out.
type Report struct {
	Started time.Time `json:"started"`
	// Duration is in milliseconds.
	Duration int64 `json:"duration_ms"`
	// Passed: the story came to its end, and every check passed.
	Passed bool `json:"passed"`
	// Error is what kept the story from its end.
	Error  string        `json:"error,omitempty"`
	Checks int           `json:"checks"`
	Failed int           `json:"failed"`
	Scenes []SceneResult `json:"scenes"`
	Steps  []Step        `json:"steps"`
	// Logs is the folder with the programs' logs, kept when something failed.
	Logs string `json:"logs,omitempty"`
	Kept *Kept  `json:"kept,omitempty"`
}

// timeline collects the steps and prints each as it comes. It is safe for
// concurrent use.
type timeline struct {
	// ctx ends when the story is interrupted: what fails then says nothing.
	ctx    context.Context
	mu     sync.Mutex
	out    io.Writer
	report Report
	start  time.Time
}

func newTimeline(ctx context.Context, out io.Writer) *timeline {
	now := time.Now()
	return &timeline{ctx: ctx, out: out, start: now, report: Report{Started: now.UTC()}}
}

// begin starts a scene.
func (t *timeline) begin(s scene) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Scenes = append(t.report.Scenes, SceneResult{Letter: s.letter, Title: s.title, Latencies: map[string]float64{}})
	fmt.Fprintf(t.out, "\n(%s) %s\n", s.letter, s.title)
}

// say notes what happened.
func (t *timeline) say(host, format string, args ...any) {
	t.add(Step{Host: host, Text: fmt.Sprintf(format, args...)})
}

// measured notes what came how long after something else: "alert to resolved",
// that was at the time given.
func (t *timeline) measured(host, what string, from, to time.Time) {
	ms := milliseconds(to.Sub(from))
	t.addAt(to, Step{Host: host, Text: what, Latency: &ms})
}

// figure notes a time that was measured and belongs to no moment.
func (t *timeline) figure(host, what string, d time.Duration) {
	ms := milliseconds(d)
	t.add(Step{Host: host, Text: what, Latency: &ms})
}

// check notes whether something is as it should be: err says why not.
func (t *timeline) check(host, what string, err error) {
	if t.ctx.Err() != nil {
		return
	}
	step := Step{Host: host, Text: what, Result: "pass"}
	if err != nil {
		step.Result, step.Problem = "fail", err.Error()
	}
	t.add(step)
}

func (t *timeline) add(s Step) { t.addAt(time.Now(), s) }

func (t *timeline) addAt(at time.Time, s Step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.At = at.Sub(t.start).Milliseconds()
	if n := len(t.report.Scenes); n > 0 {
		now := &t.report.Scenes[n-1]
		s.Scene = now.Letter
		now.count(s)
	}
	if s.Result != "" {
		t.report.Checks++
	}
	if s.Result == "fail" {
		t.report.Failed++
	}
	t.report.Steps = append(t.report.Steps, s)
	printStep(t.out, s)
}

func (r *SceneResult) count(s Step) {
	switch s.Result {
	case "pass":
		r.Checks++
	case "fail":
		r.Checks++
		r.Failed++
	}
	if s.Latency != nil {
		r.Latencies[s.Text] = *s.Latency
		r.order = append(r.order, s.Text)
	}
}

// failed tells whether a check failed so far.
func (t *timeline) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.report.Failed > 0
}

func (t *timeline) keepLogs(dir string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Logs = dir
	if err != nil {
		fmt.Fprintf(t.out, "some logs could not be kept: %v\n", err)
	}
}

func (t *timeline) kept(k Kept) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Kept = &k
}

// finish returns the report, and prints its end. err is what kept the story
// from its own.
func (t *timeline) finish(err error) Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Duration = time.Since(t.start).Milliseconds()
	t.report.Passed = err == nil && t.report.Failed == 0
	if err != nil {
		t.report.Error = err.Error()
	}
	printSummary(t.out, t.report)
	return t.report
}

func printStep(out io.Writer, s Step) {
	mark := map[string]string{"": "    ", "pass": "PASS", "fail": "FAIL"}[s.Result]
	text := s.Text
	if s.Latency != nil {
		text = fmt.Sprintf("%s: %s", s.Text, showMillis(*s.Latency))
	}
	fmt.Fprintf(out, "%8.3f s  %-10s  %s  %s\n", float64(s.At)/1000, s.Host, mark, text)
	for line := range strings.Lines(s.Problem) {
		fmt.Fprintf(out, "%32s%s\n", "", strings.TrimRight(line, "\n"))
	}
}

func printSummary(out io.Writer, r Report) {
	if len(r.Scenes) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%-5s %-58s %7s %7s\n", "scene", "what", "checks", "failed")
	for _, s := range r.Scenes {
		fmt.Fprintf(out, "(%s)   %-58s %7d %7d\n", s.Letter, s.Title, s.Checks, s.Failed)
	}
	fmt.Fprintf(out, "\n%-5s %-58s %15s\n", "scene", "measured", "")
	for _, s := range r.Scenes {
		for _, name := range s.order {
			fmt.Fprintf(out, "(%s)   %-58s %15s\n", s.Letter, name, showMillis(s.Latencies[name]))
		}
	}
	verdict := "everything was as it should be"
	switch {
	case r.Failed > 0:
		verdict = fmt.Sprintf("%d NOT as they should be, look for FAIL above", r.Failed)
	case r.Error != "":
		verdict = "the story did not come to its end"
	}
	fmt.Fprintf(out, "\n%d checks in %.0f s: %s\n", r.Checks, float64(r.Duration)/1000, verdict)
	if r.Logs != "" {
		fmt.Fprintf(out, "logs, configuration and rules of the programs: %s\n", r.Logs)
	}
	if r.Kept != nil {
		printKept(out, *r.Kept)
	}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

func showMillis(ms float64) string {
	if ms >= 1000 {
		return fmt.Sprintf("%.2f s", ms/1000)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
