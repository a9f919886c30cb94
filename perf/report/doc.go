// Package report turns samples into one side-by-side table: medians, ratios and verdicts, as Markdown for people
// and as JSON for programs. It measures nothing.
package report
