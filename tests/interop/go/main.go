// Command interop lets the tests ask Go's own libraries. It reads a JSON list of questions from standard input and
// writes a JSON list of answers: {"ok": true, "value": ...} with a typed value, or {"ok": false, "error": text}.
package main

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"reflect"
	"sort"
	"strconv"
	"time"

	"github.com/boj/redistore"
	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"
)

// Types of the kind that applications keep in sessions.
type (
	Role    string
	Level   int8
	Weights []float32
	Labels  map[string][]string
	Address struct {
		Street string
		Floor  int
	}
	Profile struct {
		Name    string
		Age     uint8
		Admin   bool
		Score   float32
		Home    Address
		Work    *Address
		Tags    []string
		Limits  map[string]int64
		Seen    time.Time
		Avatar  []byte
		Extra   interface{}
		Grid    [2][2]int16
		Friends []Profile
		Site    *url.URL
	}
	Node struct {
		Label string
		Next  *Node
	}
)

func init() {
	for _, value := range []interface{}{
		Role(""), Level(0), Weights{}, Labels{}, Profile{}, &Node{}, []Address{}, map[string]Profile{},
		map[string]interface{}{}, map[interface{}]interface{}{}, map[string]string{}, map[int]string{},
		[]interface{}{}, [3]uint16{}, []time.Time{}, []time.Duration{}, [][]byte{}, map[string][]int64{},
		time.Time{}, time.Duration(0), &url.URL{},
	} {
		gob.Register(value)
	}
}

// samples are sessions of every type that has to survive a visit to Python.
func samples() map[string]map[interface{}]interface{} {
	site, _ := url.Parse("https://example.test/a?b=c")
	zone := time.FixedZone("", 19800)
	moment := time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)
	profile := Profile{
		Name: "Zoë", Age: 200, Admin: true, Score: 0.1, Home: Address{"Main", -3}, Work: &Address{Floor: 1},
		Tags: []string{"a", ""}, Limits: map[string]int64{"x": math.MinInt64}, Seen: moment.In(zone),
		Avatar: []byte{0, 255}, Extra: []interface{}{Role("guest"), nil, uint16(7)},
		Grid: [2][2]int16{{1, 2}, {3, -4}}, Friends: []Profile{{Name: "Bob"}}, Site: site,
	}
	return map[string]map[interface{}]interface{}{
		"empty":  {},
		"common": {"s": "x", "b": true, "i": 42, "f": 1.5, "raw": []byte{1}, "nil": nil, "flash": []interface{}{"a", 1}},
		"kinds": {
			"int8": int8(-128), "int16": int16(-300), "int32": int32(-70000), "int64": int64(math.MinInt64),
			"uint": uint(7), "uint8": uint8(255), "uint16": uint16(65535), "uint32": uint32(math.MaxUint32),
			"uint64": uint64(math.MaxUint64), "uintptr": uintptr(1), "float32": float32(0.1), "duration": 90 * time.Second,
			"not-utf8": "a\xff\xfeb", "nan": math.Inf(-1), "zero": math.Copysign(0, -1),
		},
		"slices": {
			"strings": []string{"admin", ""}, "ints": []int{1, -2}, "int8s": []int8{-1}, "uint64s": []uint64{1 << 63},
			"float32s": []float32{0.1}, "bools": []bool{true, false}, "array": [3]uint16{1, 2, 3},
			"times": []time.Time{moment, moment.In(zone)}, "durations": []time.Duration{1}, "bytes": [][]byte{{1}, {}},
			"empty": []string{},
		},
		"maps": {
			"strings": map[string]string{"k": "v"}, "ints": map[int]string{-2: "b"}, 7: "seven", int64(8): "eight",
			"any": map[interface{}]interface{}{"a": 1, 2: "b"}, "nested": map[string]interface{}{"deep": int32(1)},
			"lists": map[string][]int64{"a": {1}},
		},
		"times":    {"utc": moment, "zone": moment.In(zone), "zero": time.Time{}, "odd": moment.In(time.FixedZone("", 7297))},
		"structs":  {"p": profile, "zero": Profile{}, "list": []Address{{}, {"A", 1}}, "map": map[string]Profile{"x": profile}},
		"pointers": {"node": &Node{"a", &Node{"b", nil}}, "url": site},
		"named":    {"role": Role("admin"), "level": Level(-5), "weights": Weights{0.5}, "labels": Labels{"a": {"b"}}},
	}
}

type question struct {
	Op         string
	Sample     string
	Payload    string // hex
	Serializer string
	Target     string
	Hash       string
	Name       string
	Cookie     string
	Keys       []*string // hex, or null
}

type answer map[string]interface{}

func unhex(text string) []byte {
	raw, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return raw
}

func readGob(payload string) (map[interface{}]interface{}, error) {
	session := sessions.NewSession(nil, "test")
	err := redistore.GobSerializer{}.Deserialize(unhex(payload), session)
	return session.Values, err
}

func reply(value interface{}, err error) answer {
	if err != nil {
		return answer{"ok": false, "error": err.Error()}
	}
	return answer{"ok": true, "value": typed(value)}
}

func readJSON(payload string) answer {
	session := sessions.NewSession(nil, "test")
	err := redistore.JSONSerializer{}.Deserialize(unhex(payload), session)
	return reply(session.Values, err)
}

func writeSample(name string) answer {
	session := sessions.NewSession(nil, "test")
	session.Values = samples()[name]
	raw, err := redistore.GobSerializer{}.Serialize(session)
	if err != nil {
		return answer{"ok": false, "error": err.Error()}
	}
	return answer{"ok": true, "payload": hex.EncodeToString(raw)}
}

// isSample tells whether a payload holds exactly what Go itself reads of a sample.
func isSample(name, payload string) answer {
	original := writeSample(name)
	if original["ok"] != true {
		return original
	}
	wanted, err := readGob(original["payload"].(string))
	if err != nil {
		return reply(nil, err)
	}
	got, err := readGob(payload)
	if err != nil {
		return reply(nil, err)
	}
	if !reflect.DeepEqual(got, wanted) {
		return answer{"ok": false, "error": fmt.Sprintf("got %#v, wanted %#v", got, wanted)}
	}
	return answer{"ok": true}
}

func codecs(asked question) []securecookie.Codec {
	var keys [][]byte
	for _, key := range asked.Keys {
		if key == nil {
			keys = append(keys, nil)
		} else {
			keys = append(keys, unhex(*key))
		}
	}
	made := securecookie.CodecsFromPairs(keys...)
	for _, codec := range made {
		cookie := codec.(*securecookie.SecureCookie).MaxAge(0).MaxLength(0)
		if asked.Hash == "sha512" {
			cookie.HashFunc(sha512.New)
		}
		switch asked.Serializer {
		case "json":
			cookie.SetSerializer(securecookie.JSONEncoder{})
		case "nop":
			cookie.SetSerializer(securecookie.NopEncoder{})
		}
	}
	return made
}

func readCookie(asked question) answer {
	switch asked.Target {
	case "map":
		var value map[interface{}]interface{}
		err := securecookie.DecodeMulti(asked.Name, asked.Cookie, &value, codecs(asked)...)
		return reply(value, err)
	case "string":
		var value string
		err := securecookie.DecodeMulti(asked.Name, asked.Cookie, &value, codecs(asked)...)
		return reply(value, err)
	case "bytes":
		var value []byte
		err := securecookie.DecodeMulti(asked.Name, asked.Cookie, &value, codecs(asked)...)
		return reply(value, err)
	}
	var value interface{}
	err := securecookie.DecodeMulti(asked.Name, asked.Cookie, &value, codecs(asked)...)
	return reply(value, err)
}

func typed(value interface{}) answer {
	kind := fmt.Sprintf("%T", value)
	switch v := value.(type) {
	case nil:
		return answer{"type": "nil", "value": nil}
	case string:
		return answer{"type": kind, "base64": base64.StdEncoding.EncodeToString([]byte(v))}
	case []byte:
		return answer{"type": kind, "base64": base64.StdEncoding.EncodeToString(v)}
	case float64:
		return answer{"type": kind, "bits": fmt.Sprintf("%016x", math.Float64bits(v))}
	case float32:
		return answer{"type": kind, "bits": fmt.Sprintf("%08x", math.Float32bits(v))}
	case time.Time:
		_, offset := v.Zone()
		return answer{"type": kind, "unix": v.Unix(), "nsec": v.Nanosecond(), "offset_seconds": offset}
	}
	return answer{"type": kind, "value": composite(reflect.ValueOf(value))}
}

func composite(value reflect.Value) interface{} {
	switch value.Kind() {
	case reflect.Bool:
		return value.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(value.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(value.Uint(), 10)
	case reflect.Slice:
		elements := []answer{}
		for i := 0; i < value.Len(); i++ {
			elements = append(elements, typed(value.Index(i).Interface()))
		}
		return elements
	case reflect.Map:
		pairs := []answer{}
		for _, key := range value.MapKeys() {
			pairs = append(pairs, answer{"key": typed(key.Interface()), "value": typed(value.MapIndex(key).Interface())})
		}
		return pairs
	}
	return fmt.Sprint(value.Interface())
}

func names() answer {
	list := []string{}
	for name := range samples() {
		list = append(list, name)
	}
	sort.Strings(list)
	return answer{"ok": true, "names": list}
}

func ask(asked question) (given answer) {
	defer func() {
		if problem := recover(); problem != nil {
			given = answer{"ok": false, "error": fmt.Sprint("panic: ", problem)}
		}
	}()
	switch asked.Op {
	case "names":
		return names()
	case "gob":
		value, err := readGob(asked.Payload)
		return reply(value, err)
	case "string":
		var value string
		err := gob.NewDecoder(bytes.NewReader(unhex(asked.Payload))).Decode(&value)
		return reply(value, err)
	case "json":
		return readJSON(asked.Payload)
	case "sample":
		return writeSample(asked.Sample)
	case "is-sample":
		return isSample(asked.Sample, asked.Payload)
	case "cookie":
		return readCookie(asked)
	}
	return answer{"ok": false, "error": "unknown question"}
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		panic(err)
	}
	answers := []answer{}
	for _, asked := range questions {
		answers = append(answers, ask(asked))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
