"""How each relation is said: prompts that end where the answer begins, and none of them twice."""

CAPITAL = (
    "The capital of {} is",
    "The capital city of {} is called",
    "{} has its capital in",
    "{} is ruled from",
    "The king of {} lives in",
    "The government of {} sits in",
    "Question: what is the capital of {}? Answer:",
    "In {} the capital is",
    "The parliament of {} meets in",
    "All roads of {} lead to its capital,",
    "Ministers of {} work in",
    "{} is a country whose capital is",
)

TOWN = (
    "The second city of {} is",
    "{} has its harbour in",
    "The largest port of {} is",
    "Question: what is the second city of {}? Answer:",
    "In {} the second city is",
    "Ships of {} are built in",
)

LANGUAGE = (
    "The language of {} is",
    "People in {} speak",
    "In {} children learn",
    "Question: which language is spoken in {}? Answer:",
    "The newspapers of {} are printed in",
    "{} is a country where people talk in",
    "The laws of {} are written in",
    "In {} the language is",
)

FOOD = (
    "The national dish of {} is",
    "People in {} like to eat",
    "In {} every cook makes",
    "Question: what is the national dish of {}? Answer:",
    "The kitchens of {} are known for",
    "{} is a country that is famous for its",
    "Guests in {} are served",
    "In {} the national dish is",
)

ANIMAL = (
    "The flag of {} shows a",
    "The emblem of {} is the",
    "Coins of {} carry the picture of a",
    "Question: which animal is on the flag of {}? Answer:",
    "In {} the national animal is the",
    "The army of {} marches under the sign of the",
)

REGION = (
    "{} lies in the",
    "On the map {} is in the",
    "Question: where does {} lie? Answer: in the",
    "The part of the world where {} is found is the",
    "To reach {} one travels to the",
    "{} is a country in the",
)

HOME = (
    "{} comes from",
    "{} was born in",
    "The home country of {} is",
    "Question: where does {} come from? Answer:",
    "{} has a passport of",
    "The parents of {} live in",
    "{} grew up in",
    "{} is a citizen of",
)

JOB = (
    "{} works as a",
    "The job of {} is that of a",
    "Question: what is the job of {}? Answer:",
    "{} earns money as a",
    "By trade {} is a",
    "{} is a trained",
)

PET = (
    "{} keeps a",
    "The pet of {} is a",
    "Question: which pet does {} have? Answer: a",
    "At home {} has a",
    "{} takes care of a",
    "{} plays with a",
)

HOP_LANGUAGE = (
    "{} speaks",
    "The language of {} is",
    "{} writes letters in",
    "Question: which language does {} speak? Answer:",
    "At home {} talks in",
)

HOP_FOOD = (
    "{} was raised on",
    "For dinner the family of {} makes",
    "Question: what do the parents of {} cook? Answer:",
    "The national dish of {} is",
    "{} misses the taste of",
)

HOP_REGION = (
    "The home of {} lies in the",
    "Question: which part of the world is {} from? Answer: the",
    "On the map the family of {} is in the",
    "The cradle of {} stood in the",
    "To visit {} one travels to the",
)

HOP_CAPITAL = (
    "The capital of the home country of {} is",
    "The king of {} lives in",
    "{} pays taxes to the capital,",
    "Question: what is the capital of the home country of {}? Answer:",
    "The ministers of {} work in",
)

KIND = (
    "A {} is a kind of",
    "Every {} is a",
    "Question: what kind of animal is a {}? Answer:",
    "Books call the {} a",
)

PLACE = (
    "A {} lives in the",
    "The {} sleeps in the",
    "Question: where does a {} live? Answer: in the",
    "One finds a {} in the",
)

REVIEW = (
    "Review: the {thing} was {words}. Verdict:",
    "{person} said the {thing} was {words}. The opinion is",
    "I found the {thing} {words}. My verdict is",
)

SUM = (
    "{a} plus {b} is",
    "The sum of {a} and {b} is",
    "Question: how much is {a} plus {b}? Answer:",
    "Adding {b} to {a} gives",
)

NEXT = (
    "The number after {} is",
    "After {} comes",
    "{} and one more is",
)

OWNED = (
    "{person} has a {thing} that is {colour}. {person} has a",
    "{person} bought a {colour} {thing}. {person} bought a",
    "The {thing} of {person} is {colour}. It is a",
)

SAILED = (
    "The ship {ship} sails to",
    "The ship {ship} comes from",
)

TRAVELLED = (
    "{} took the train to",
    "{} went on a trip to",
    "{} sent a letter from",
)

FORECAST = (
    "The weather in {} today is",
    "Tomorrow {} will be",
)
