package interop

import (
	"bytes"
	"net/http"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	pb "interop/gen/protocol"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	verify(t, "/debug/metrics is parsed by expfmt, and counts what was done", with(expfmtGo, netHTTP), metrics)
}

func scrape(t *testing.T, b *broker) map[string]*dto.MetricFamily {
	t.Helper()
	response, body := do(t, http.DefaultClient, request(t, "GET", b.endpoint+"/debug/metrics", nil))
	if response.StatusCode != http.StatusOK || expfmt.ResponseFormat(response.Header).FormatType() != expfmt.TypeTextPlain {
		t.Fatalf("metrics: %v", response)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		t.Fatalf("metrics: %v", err)
	}
	return families
}

// value is that of the metric of a family which has the labels; zero if there is none.
func value(family *dto.MetricFamily, labels ...string) float64 {
metrics:
	for _, metric := range family.GetMetric() {
		for i := 0; i < len(labels); i += 2 {
			found := false
			for _, label := range metric.Label {
				found = found || label.GetName() == labels[i] && label.GetValue() == labels[i+1]
			}
			if !found {
				continue metrics
			}
		}
		return metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
	}
	return 0
}

func metrics(t *testing.T) {
	b, name := onEtcd(t), "interop/metrics/one"
	b.create(t, spec(name, pb.CompressionCodec_NONE))
	before := scrape(t, b)
	for range 7 {
		b.mustAppend(t, name, []byte("content"))
	}
	if _, err := b.append(within(t), &pb.AppendRequest{Journal: "interop/metrics/absent"}); err != nil {
		t.Fatal(err)
	}
	// The fragment of the first append is stored at once.
	b.awaitStored(t, name, 1)
	after := scrape(t, b)
	grew := func(name string, labels ...string) float64 {
		return value(after[name], labels...) - value(before[name], labels...)
	}
	// Of names and meanings that the protocol's dashboards know. Other tests append meanwhile.
	for _, c := range []struct {
		grew float64
		what string
	}{
		{grew("gazette_journal_server_started_totals", "operation", "Append"), "appends begun"},
		{grew("gazette_journal_server_completed_totals", "operation", "Append", "status", "ok"), "appends done"},
		{grew("grpc_server_started_total", "grpc_service", "protocol.Journal", "grpc_method", "Append"), "calls begun"},
		{grew("grpc_server_handled_total", "grpc_service", "protocol.Journal", "grpc_method", "Append", "grpc_code", "OK"), "calls handled"},
		{grew("grpc_server_msg_received_total", "grpc_service", "protocol.Journal", "grpc_method", "Append"), "messages received"},
		{grew("gazette_spool_commits_total"), "commits"},
	} {
		if c.grew < 7 {
			t.Errorf("%s grew by %v, expected 7 or more", c.what, c.grew)
		}
	}
	if grew("gazette_journal_server_completed_totals", "operation", "Append", "status", "JOURNAL_NOT_FOUND") < 1 {
		t.Error("an append to no journal was not counted")
	}
	if head := value(after["gazette_write_head"], "journal", name); head != 49 {
		t.Errorf("the write head is %v, expected 49", head)
	}
	for name, want := range map[string]dto.MetricType{
		"gazette_journal_server_started_totals": dto.MetricType_COUNTER, "gazette_write_head": dto.MetricType_GAUGE,
		"gazette_spool_commit_bytes_total": dto.MetricType_COUNTER, "gazette_store_operation_duration_seconds": dto.MetricType_HISTOGRAM,
		"gazette_store_operation_total": dto.MetricType_COUNTER, "gazette_store_put_bytes_total": dto.MetricType_COUNTER,
		"gazette_store_health_check_total": dto.MetricType_COUNTER, "gazette_allocator_items": dto.MetricType_GAUGE,
		"gazette_allocator_members": dto.MetricType_GAUGE, "gazette_allocator_desired_replication_slots": dto.MetricType_GAUGE,
		"gazette_allocator_converge_total": dto.MetricType_COUNTER, "gazette_allocator_max_flow_runtime_seconds": dto.MetricType_HISTOGRAM,
	} {
		if family := after[name]; family == nil || family.GetType() != want || family.GetHelp() == "" {
			t.Errorf("%s: %v, expected a %v with help", name, family, want)
		}
	}
	// Whatever the names, Go's encoder makes of them what its parser reads as the same.
	var text bytes.Buffer
	for _, family := range after {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			t.Fatal(err)
		}
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	if again, err := parser.TextToMetricFamilies(&text); err != nil || len(again) != len(after) {
		t.Errorf("%d families, and %d of Go's encoder (%v)", len(after), len(again), err)
	}
}
