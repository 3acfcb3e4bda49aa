package lexis

// The dictionaries by the name under which an answer asks for them.
var dictionaries = map[string]func(){
	"d1": loadStems, "d2": loadLemmas, "d3": loadSynonyms, "d4": loadPhonemes, "d5": loadTrigrams, "d6": loadCompounds, "d7": loadAccents, "d8": loadNumerals,
}

// Each is closed when its dictionary is in memory.
var (
	stems, lemmas, synonyms, phonemes      = make(chan bool), make(chan bool), make(chan bool), make(chan bool)
	trigrams, compounds, accents, numerals = make(chan bool), make(chan bool), make(chan bool), make(chan bool)
)

func loadStems()     { <-stems }
func loadLemmas()    { <-lemmas }
func loadSynonyms()  { <-synonyms }
func loadPhonemes()  { <-phonemes }
func loadTrigrams()  { <-trigrams }
func loadCompounds() { <-compounds }
func loadAccents()   { <-accents }
func loadNumerals()  { <-numerals }
