// Google's in-memory Pub/Sub for tests (pstest), and the REST interface that it does not have.
//
//	pubsubd store ADDRESS                keeps topics and messages, over gRPC; they end with the process
//	pubsubd front ADDRESS STORE EPOCH    answers REST, and keeps nothing
//
// So the service can be killed and started again with all that it had (the front) or without (both). The front can be
// told to misbehave, at /faults:
//
//	{"tokens": ["a"], "refuse": [{"verb": "pull", "times": 2, "status": 429, "retryAfter": "1"}]}
//
// From then on a call needs one of the tokens (none: no call does), and the next calls of a verb are answered with the
// status. /counts tells how many calls of each verb there were, and how many messages were "delivered". Each process ends
// with its standard input.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	mostBytes   = 64 << 20
	pullSeconds = 20
)

// https://cloud.google.com/apis/design/errors#http_mapping
var statuses = map[codes.Code]int{
	codes.InvalidArgument: 400, codes.FailedPrecondition: 400, codes.OutOfRange: 400, codes.Unauthenticated: 401,
	codes.PermissionDenied: 403, codes.NotFound: 404, codes.AlreadyExists: 409, codes.Aborted: 409,
	codes.ResourceExhausted: 429, codes.Canceled: 499, codes.Unimplemented: 501, codes.Unavailable: 503,
	codes.DeadlineExceeded: 504,
}

type fault struct {
	Verb       string
	Times      int
	Status     int
	RetryAfter string
}

type faults struct {
	lock   sync.Mutex
	Tokens []string
	Refuse []*fault
}

// The fault that a call meets, or nil.
func (f *faults) of(verb, authorization string) *fault {
	f.lock.Lock()
	defer f.lock.Unlock()
	token := strings.TrimPrefix(authorization, "Bearer ")
	if len(f.Tokens) > 0 && !slices.Contains(f.Tokens, token) {
		return &fault{Status: 401}
	}
	for _, each := range f.Refuse {
		if each.Verb == verb && each.Times > 0 {
			each.Times--
			return each
		}
	}
	return nil
}

type front struct {
	topics        pb.PublisherClient
	subscriptions pb.SubscriberClient
	faults        faults
	epoch         string

	lock   sync.Mutex
	counts map[string]int
	news   chan struct{} // closed when a pull that waits may find something
}

// Count what was done, for /counts.
func (f *front) count(verb string, number int) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.counts[verb] += number
}

// Something was published, or is free again.
func (f *front) tell() {
	f.lock.Lock()
	defer f.lock.Unlock()
	close(f.news)
	f.news = make(chan struct{})
}

// Wait for the first message, as the service does. What is free again by its lease is found by looking.
func (f *front) pull(x context.Context, asked *pb.PullRequest) (*pb.PullResponse, error) {
	atOnce := asked.ReturnImmediately
	asked.ReturnImmediately = true
	for end := time.Now().Add(pullSeconds * time.Second); ; {
		f.lock.Lock()
		news := f.news
		f.lock.Unlock()
		answer, err := f.subscriptions.Pull(x, asked)
		if err != nil || len(answer.ReceivedMessages) > 0 || atOnce || time.Now().After(end) {
			return answer, err
		}
		select {
		case <-x.Done():
			return nil, x.Err()
		case <-news:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "store":
		err = keep(os.Args[2])
	case len(os.Args) == 5 && os.Args[1] == "front":
		err = serve(os.Args[2], os.Args[3], os.Args[4])
	default:
		err = fmt.Errorf("usage: pubsubd store ADDRESS | pubsubd front ADDRESS STORE EPOCH")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// Listen at the address, for messages that are larger than pstest's own server takes.
func keep(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	store := pstest.NewServer()
	server := grpc.NewServer(grpc.MaxRecvMsgSize(mostBytes), grpc.MaxSendMsgSize(mostBytes))
	pb.RegisterPublisherServer(server, &store.GServer)
	pb.RegisterSubscriberServer(server, &store.GServer)
	go server.Serve(listener)
	return nil
}

// Listen at the address. What the store gives out begins with the epoch, because a new store counts from one again.
func serve(address, store, epoch string) error {
	connection, err := grpc.NewClient(store, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostBytes), grpc.MaxCallSendMsgSize(mostBytes)))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	made := &front{topics: pb.NewPublisherClient(connection), subscriptions: pb.NewSubscriberClient(connection), epoch: epoch, news: make(chan struct{}), counts: map[string]int{}}
	go http.Serve(listener, made)
	return nil
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, mostBytes))
	if err != nil {
		return
	}
	if r.URL.Path == "/faults" {
		f.faults.lock.Lock()
		f.faults.Tokens, f.faults.Refuse = nil, nil
		err := json.Unmarshal(body, &f.faults)
		f.faults.lock.Unlock()
		if err != nil {
			w.WriteHeader(400)
		}
		return
	}
	if r.URL.Path == "/counts" {
		f.lock.Lock()
		defer f.lock.Unlock()
		json.NewEncoder(w).Encode(f.counts)
		return
	}
	name, verb, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), ":")
	if verb == "" {
		verb = r.Method
	}
	if met := f.faults.of(verb, r.Header.Get("Authorization")); met != nil {
		if met.RetryAfter != "" {
			w.Header().Set("Retry-After", met.RetryAfter)
		}
		refuse(w, met.Status, "FAULT", "as the test has said")
		return
	}
	f.count(verb, 1)
	answer, err := f.call(r.Context(), verb, name, body)
	if verb != "pull" && verb != "GET" {
		f.tell()
	}
	if err != nil {
		said := status.Convert(err)
		code, known := statuses[said.Code()]
		if !known {
			code = 500
		}
		refuse(w, code, strings.ToUpper(said.Code().String()), said.Message())
		return
	}
	written, _ := protojson.Marshal(answer)
	w.Header().Set("Content-Type", "application/json")
	w.Write(written)
}

func refuse(w http.ResponseWriter, code int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "status": kind, "message": message}})
}

// The answer of the store, whose ids it makes those of this epoch.
func (f *front) call(x context.Context, verb, name string, body []byte) (proto.Message, error) {
	switch verb {
	case "publish":
		asked, err := read(body, &pb.PublishRequest{})
		if err != nil {
			return nil, err
		}
		asked.Topic = name
		return f.publish(x, asked)
	case "pull":
		asked, err := read(body, &pb.PullRequest{})
		if err != nil {
			return nil, err
		}
		asked.Subscription = name
		answer, err := f.pull(x, asked)
		f.count("delivered", len(answer.GetReceivedMessages()))
		for _, each := range answer.GetReceivedMessages() {
			each.AckId = f.epoch + each.AckId
			each.Message.MessageId = f.epoch + each.Message.MessageId
		}
		return answer, err
	case "acknowledge":
		asked, err := read(body, &pb.AcknowledgeRequest{})
		if err != nil {
			return nil, err
		}
		asked.Subscription, asked.AckIds = name, f.own(asked.AckIds)
		return f.subscriptions.Acknowledge(x, asked)
	case "modifyAckDeadline":
		asked, err := read(body, &pb.ModifyAckDeadlineRequest{})
		if err != nil {
			return nil, err
		}
		asked.Subscription, asked.AckIds = name, f.own(asked.AckIds)
		return f.subscriptions.ModifyAckDeadline(x, asked)
	}
	switch kind := strings.Split(name, "/")[2]; {
	case kind == "topics" && strings.Count(name, "/") == 2:
		return f.topics.ListTopics(x, &pb.ListTopicsRequest{Project: strings.TrimSuffix(name, "/topics"), PageSize: 1})
	case kind == "topics":
		return f.topic(x, verb, name, body)
	case kind == "subscriptions":
		return f.subscription(x, verb, name, body)
	}
	return nil, status.Error(codes.Unimplemented, verb+" "+name)
}

// As the service does, and pstest does not: a message has a body, attributes or both, and a request 10 MB at most.
func (f *front) publish(x context.Context, asked *pb.PublishRequest) (proto.Message, error) {
	if proto.Size(asked) > 10_000_000 {
		return nil, status.Error(codes.InvalidArgument, "The request is larger than 10 MB.")
	}
	for _, each := range asked.Messages {
		if len(each.Data) == 0 && len(each.Attributes) == 0 {
			return nil, status.Error(codes.InvalidArgument, "A message needs data, or an attribute.")
		}
		for name, value := range each.Attributes {
			if name == "" || len(name) > 256 || len(value) > 1024 || len(each.Attributes) > 100 {
				return nil, status.Error(codes.InvalidArgument, "An attribute is beyond the limits.")
			}
		}
	}
	answer, err := f.topics.Publish(x, asked)
	for number := range answer.GetMessageIds() {
		answer.MessageIds[number] = f.epoch + answer.MessageIds[number]
	}
	return answer, err
}

// The ids that this store has given out: those of another epoch are forgotten, as the service forgets them.
func (f *front) own(ids []string) (found []string) {
	for _, id := range ids {
		if own, ours := strings.CutPrefix(id, f.epoch); ours {
			found = append(found, own)
		}
	}
	return found
}

func (f *front) topic(x context.Context, verb, name string, body []byte) (proto.Message, error) {
	switch verb {
	case "PUT":
		made, err := read(body, &pb.Topic{})
		if err != nil {
			return nil, err
		}
		made.Name = name
		return f.topics.CreateTopic(x, made)
	case "GET":
		return f.topics.GetTopic(x, &pb.GetTopicRequest{Topic: name})
	case "DELETE":
		return f.topics.DeleteTopic(x, &pb.DeleteTopicRequest{Topic: name})
	}
	return nil, status.Error(codes.Unimplemented, verb+" "+name)
}

func (f *front) subscription(x context.Context, verb, name string, body []byte) (proto.Message, error) {
	switch verb {
	case "PUT":
		made, err := read(body, &pb.Subscription{})
		if err != nil {
			return nil, err
		}
		made.Name = name
		return f.subscriptions.CreateSubscription(x, made)
	case "GET":
		return f.subscriptions.GetSubscription(x, &pb.GetSubscriptionRequest{Subscription: name})
	case "DELETE":
		return f.subscriptions.DeleteSubscription(x, &pb.DeleteSubscriptionRequest{Subscription: name})
	}
	return nil, status.Error(codes.Unimplemented, verb+" "+name)
}

func read[M proto.Message](body []byte, into M) (M, error) {
	if len(body) == 0 {
		return into, nil
	}
	if err := protojson.Unmarshal(body, into); err != nil {
		return into, status.Error(codes.InvalidArgument, err.Error())
	}
	return into, nil
}
